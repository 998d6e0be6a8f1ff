/* SPDX-License-Identifier: Apache-2.0 */
#include "golden/wire_samples.h"

#define EPOCH UINT64_C(0x0123456789abcdef)

static uint8_t hash[TERN_HASH_BYTES] = { 0x10, 0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0x18, 0x19, 0x1a,
                                         0x1b, 0x1c, 0x1d, 0x1e, 0x1f, 0x20, 0x21, 0x22, 0x23, 0x24, 0x25,
                                         0x26, 0x27, 0x28, 0x29, 0x2a, 0x2b, 0x2c, 0x2d, 0x2e, 0x2f };
static uint8_t key_a[TERN_KEY_BYTES] = { 0xa0, 0xa1, [30] = 0xfe, [31] = 0xff };
static uint8_t key_b[TERN_KEY_BYTES] = { 0xb0, 0xb1, [30] = 0x00, [31] = 0x01 };

static Tern__Header headers[20];
static struct wire_sample samples[20];
static size_t n_samples;

static Tern__Header *add(const char *name, const char *comment, Tern__Header__BodyCase body)
{
    Tern__Header *h = &headers[n_samples];

    *h = (Tern__Header)TERN__HEADER__INIT;
    h->version = TERN_WIRE_VERSION;
    h->epoch = EPOCH;
    h->layout = 3;
    h->body_case = body;
    samples[n_samples++] = (struct wire_sample){ name, comment, h };
    return h;
}

static void add_joining(void)
{
    static Tern__Hello hello = TERN__HELLO__INIT;
    static Tern__Welcome welcome = TERN__WELCOME__INIT, bare = TERN__WELCOME__INIT;
    static Tern__Busy busy = TERN__BUSY__INIT;
    Tern__Header *h =
        add("hello", "a coordinator asks for a worker; no layout yet", TERN__HEADER__BODY_HELLO);

    hello.name = (char *)"den";
    hello.software = (char *)"tern 0.1.0";
    h->layout = 0;
    h->hello = &hello;

    h = add("welcome", "a worker that has the whole model of 30 layers", TERN__HEADER__BODY_WELCOME);
    welcome.name = (char *)"caf\xc3\xa9-1";
    welcome.software = (char *)"ternd 0.1.0";
    welcome.cpu = (char *)"avx2";
    welcome.threads = 4;
    welcome.memory_limit = UINT64_C(6442450944);
    welcome.arch_hash = (ProtobufCBinaryData){ sizeof hash, hash };
    welcome.last_layer = 30;
    h->welcome = &welcome;

    h = add("welcome_bare", "a worker without a model and without a limit", TERN__HEADER__BODY_WELCOME);
    bare.name = (char *)"w";
    h->welcome = &bare;

    h = add("busy", "somebody else holds the worker: the only body whose epoch may be 0",
            TERN__HEADER__BODY_BUSY);
    h->epoch = 0;
    h->layout = 0;
    busy.holder = (char *)"den";
    h->busy = &busy;
}

static void add_loading(void)
{
    static Tern__Assign middle = TERN__ASSIGN__INIT, last;
    static Tern__Tensors__Entry entry[2] = { TERN__TENSORS__ENTRY__INIT, TERN__TENSORS__ENTRY__INIT };
    static Tern__Tensors__Entry *entries[2] = { &entry[0], &entry[1] };
    static uint64_t ne_matrix[2] = { 2560, 6912 }, ne_norm[1] = { 2560 };
    static Tern__Tensors tensors = TERN__TENSORS__INIT;
    static Tern__Loading loading = TERN__LOADING__INIT;
    static Tern__Ready ready = TERN__READY__INIT;
    Tern__Header *h = add("assign", "layers [10, 20), with a next worker", TERN__HEADER__BODY_ASSIGN);

    middle.first_layer = 10;
    middle.last_layer = 20;
    middle.arch_hash = (ProtobufCBinaryData){ sizeof hash, hash };
    middle.boundary = 3;
    middle.n_pages = 1024;
    middle.n_slots = 16;
    middle.max_positions = 4096;
    middle.max_rows = 512;
    middle.n_tensors = 110;
    middle.upstream_key = (ProtobufCBinaryData){ sizeof key_a, key_a };
    middle.next_endpoint = (char *)"tcp://[fe80::1%eth0]:7101";
    middle.next_key = (ProtobufCBinaryData){ sizeof key_b, key_b };
    middle.stage = 1;
    middle.dead_after_ms = 3000;
    middle.max_in_flight = 12;
    h->assign = &middle;

    h = add("assign_last", "layers [0, 30), answers go to the coordinator; int8 KV",
            TERN__HEADER__BODY_ASSIGN);
    last = middle;
    last.first_layer = 0;
    last.last_layer = 30;
    last.next_endpoint = (char *)"";
    last.next_key = (ProtobufCBinaryData){ 0, NULL };
    last.stage = 0;
    last.kv = 1;
    h->assign = &last;

    h = add("tensors", "a ternary matrix and a norm", TERN__HEADER__BODY_TENSORS);
    entry[0].name = (char *)"blk.10.ffn_down.weight";
    entry[0].type = 36;
    entry[0].n_ne = 2;
    entry[0].ne = ne_matrix;
    entry[0].hash = (ProtobufCBinaryData){ sizeof hash, hash };
    entry[1].name = (char *)"blk.10.attn_norm.weight";
    entry[1].n_ne = 1;
    entry[1].ne = ne_norm;
    entry[1].hash = (ProtobufCBinaryData){ sizeof hash, hash };
    tensors.n_entries = 2;
    tensors.entries = entries;
    h->tensors = &tensors;

    h = add("loading", "half of a slice", TERN__HEADER__BODY_LOADING);
    loading.done = 100000000;
    loading.total = 200000000;
    h->loading = &loading;

    h = add("ready", "loaded", TERN__HEADER__BODY_READY);
    ready.weight_bytes = 200000000;
    ready.kv_bytes = UINT64_C(5368709120);
    ready.scratch_bytes = 1;
    h->ready = &ready;
}

static Tern__Failed failed = TERN__FAILED__INIT, *faileds[1] = { &failed };
static Tern__StageTime time[2] = { TERN__STAGE_TIME__INIT, TERN__STAGE_TIME__INIT };
static Tern__StageTime *times[2] = { &time[0], &time[1] };

/* What Step and Result have in common. */
static void fill_common(void)
{
    failed.slot = 1;
    failed.gen = 7;
    failed.code = TERN_FAILED_NUMERIC;
    failed.where = 12;
    time[0].compute_us = 4321;
    time[0].queue_us = 17;
    time[0].bytes = 11520;
    time[0].t_in_us = UINT64_C(86400123456);
    time[1].compute_us = 1;
}

static void add_steps(void)
{
    static Tern__SlotOp op[2] = { TERN__SLOT_OP__INIT, TERN__SLOT_OP__INIT }, *ops[2] = { &op[0], &op[1] };
    static Tern__Run run[2] = { TERN__RUN__INIT, TERN__RUN__INIT }, *runs[2] = { &run[0], &run[1] };
    static Tern__Step step = TERN__STEP__INIT;
    Tern__Header *h = add("step", "two sequences, one of them forked in this step", TERN__HEADER__BODY_STEP);

    op[0].kind = TERN_OP_OPEN;
    op[0].slot = 1;
    op[0].gen = 7;
    op[1].kind = TERN_OP_FORK;
    op[1].slot = 2;
    op[1].gen = 300;
    op[1].len = 64;
    op[1].from_slot = 1;
    op[1].from_gen = 6;
    run[0].slot = 1;
    run[0].gen = 7;
    run[0].n = 3;
    run[1].slot = 2;
    run[1].gen = 300;
    run[1].pos = 64;
    run[1].n = 1;
    run[1].n_want = 1;
    step.step = UINT64_C(4294967297);
    step.n_parts = 1;
    step.n_part_rows = 4;
    step.n_rows = 4;
    step.n_ops = 2;
    step.ops = ops;
    step.n_runs = 2;
    step.runs = runs;
    step.n_failed = 1;
    step.failed = faileds;
    step.n_times = 2;
    step.times = times;
    h->step = &step;
}

static void add_results(void)
{
    static Tern__Step more = TERN__STEP__INIT;
    static Tern__Result result = TERN__RESULT__INIT;
    Tern__Header *h =
        add("step_part", "the second of three messages of a large step", TERN__HEADER__BODY_STEP);
    more.step = 9;
    more.part = 1;
    more.n_parts = 3;
    more.first_row = 200;
    more.n_part_rows = 200;
    more.n_rows = 512;
    h->step = &more;

    h = add("result", "one wanted row, one failed sequence", TERN__HEADER__BODY_RESULT);
    result.step = 9;
    result.n_parts = 1;
    result.n_part_rows = 1;
    result.n_rows = 1;
    result.n_failed = 1;
    result.failed = faileds;
    result.n_times = 2;
    result.times = times;
    h->result = &result;
}

static void add_living(void)
{
    static Tern__Ping ping = TERN__PING__INIT;
    static Tern__Pong pong = TERN__PONG__INIT;
    static Tern__Bye bye = TERN__BYE__INIT;
    static Tern__Fault fault = TERN__FAULT__INIT;
    static Tern__Soon soon = TERN__SOON__INIT;
    Tern__Header *h = add("ping", "the hundredth", TERN__HEADER__BODY_PING);

    ping.seq = 100;
    h->ping = &ping;

    h = add("pong", "its answer", TERN__HEADER__BODY_PONG);
    pong.seq = 100;
    pong.steps = 12;
    pong.busy_us = 345678;
    pong.rejected = 9;
    pong.clock_us = UINT64_C(86400123999);
    pong.memory_bytes = 734003200;
    h->pong = &pong;

    h = add("soon", "nothing but that", TERN__HEADER__BODY_SOON);
    h->soon = &soon;

    h = add("bye", "draining", TERN__HEADER__BODY_BYE);
    bye.reason = TERN_BYE_DRAINING;
    h->bye = &bye;

    h = add("fault", "why a worker cannot go on", TERN__HEADER__BODY_FAULT);
    fault.status = TERN_ERR_STATE;
    fault.text = (char *)"step 12 came when step 11 was due";
    h->fault = &fault;
}

const struct wire_sample *wire_samples(size_t *n)
{
    if (n_samples == 0) {
        add_joining();
        add_loading();
        fill_common();
        add_steps();
        add_results();
        add_living();
    }
    *n = n_samples;
    return samples;
}
