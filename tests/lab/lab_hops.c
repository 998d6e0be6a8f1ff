/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How long a step takes from the end of computing on one stage to the start on the next, between real ternd
 * processes on this machine, and how many bytes that is on the wire.
 *
 *   lab_hops MODEL WORKERS STEPS [LIMIT_US [THREADS [TRACE]]]
 *
 * Plays the coordinator by hand: one row at a time through the workers' chain, so every stage waits for its
 * step as in an idle pipeline.  Results bring the stages' own times; all of them read the same clock here, so
 * they need no conversion.  A hop has three parts: `out` from the end of computing until the next worker has
 * the whole message (our hand-over, encryption, TCP, decryption) and `in` from then until its compute thread
 * begins.  Fails when the median of a hop is above LIMIT_US.  TRACE is the library made from hop_trace.c:
 * with it the parts of `out` are shown too, and everything takes a little longer.
 */
#include "lab/hop_trace.h"
#include "lab/peer.h"

#include "engine/arch.h"
#include "engine/base/log.h"
#include "engine/boundary.h"
#include "engine/gguf.h"
#include "kernels/kernels.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MAX_WORKERS 8
#define POSITIONS   128u
#define WARM_UP     50u
#define RESULT_MS   20000

static struct {
    const char *model;
    uint32_t n_workers, n_steps;
    double limit_us;
    const char *threads, *trace;
    char trace_prefix[64];

    struct tern_gguf *gguf;
    struct tern_arch arch;
    struct tern_kernels kern;
    struct tern_pool *pool;
    struct tern_identity *id;
    struct tern_key ours, keys[MAX_WORKERS];
    struct lab_ternd ternd[MAX_WORKERS];
    struct lab_peer peers[MAX_WORKERS];
    uint32_t row_bytes, header_bytes;
    struct tern_step *step;

    /* [stage][step], microseconds; of the first stage: from the end of sending; behind the last: home. */
    double *out[MAX_WORKERS + 1], *in[MAX_WORKERS], *hop[MAX_WORKERS], *compute[MAX_WORKERS];
    uint64_t *end_us[MAX_WORKERS]; /* of computing */
    uint64_t *trace_ns[MAX_WORKERS][HOP_N_KINDS];
} lab;

static void start_workers(void)
{
    static char lists[MAX_WORKERS][4096];
    const char *const args[] = { "--model", lab.model, "--threads", lab.threads, "--quiet", NULL };

    for (uint32_t i = 0; i < lab.n_workers; i++)
        assert_ok(tern_key_generate(&lab.keys[i], &unit_err));
    for (uint32_t i = 0; i < lab.n_workers; i++) {
        lab_allow_add(lists[i], sizeof lists[i], "lab", "coordinator", &lab.ours);
        if (i > 0)
            lab_allow_add(lists[i], sizeof lists[i], "before", "worker", &lab.keys[i - 1]);
        lab_ternd_start(&lab.ternd[i], &lab.keys[i], lists[i], args);
    }
}

/* The worker behind first, so that it is there when the one in front connects. */
static void assign_layers(void)
{
    uint32_t n = 0;

    /* A slice of the first layers will do. */
    for (size_t i = 0; i < lab.id->n; i++) {
        int layer = tern_tensor_layer(lab.id->entries[i].tensor->name);

        n = layer >= 0 && (uint32_t)layer >= n ? (uint32_t)layer + 1 : n;
    }
    assert_true(n >= lab.n_workers);
    for (uint32_t i = lab.n_workers; i-- > 0;) {
        struct lab_peer *p = &lab.peers[i];
        uint8_t hash[TERN_HASH_BYTES];
        Tern__Assign a;

        assert_int_equal(lab_peer_open(p, &lab.ternd[i], &lab.ours, 77), TERN_CLIENT_UP);
        lab_peer_hello(p);
        lab_peer_wait(p, TERN__HEADER__BODY_WELCOME, 3000);
        a = lab_assign(&lab.arch, hash, lab.id, n * i / lab.n_workers, n * (i + 1) / lab.n_workers,
                       i == 0 ? lab.ours.public_key : lab.keys[i - 1].public_key);
        a.stage = i;
        a.boundary = TERN_BOUNDARY_DEFAULT;
        a.dead_after_ms = 600000;
        if (i + 1 < lab.n_workers) {
            a.next_endpoint = lab.ternd[i + 1].endpoint;
            a.next_key = (ProtobufCBinaryData){ TERN_KEY_BYTES, lab.keys[i + 1].public_key };
        }
        lab_peer_assign(p, &a, lab.id, false);
        lab_peer_wait(p, TERN__HEADER__BODY_READY, 60000);
    }
}

static void fill_step(uint32_t i)
{
    struct tern_step *s = lab.step;
    uint32_t pos = i % POSITIONS, n = lab.arch.n_embd;
    float *x = malloc(n * sizeof *x);
    uint64_t rng = i + 1;

    assert_non_null(x);
    for (uint32_t k = 0; k < n; k++)
        x[k] = (float)(int)(unit_random(&rng) % 2001) / 1000.0f - 1.0f;
    tern_step_clear(s);
    s->step = i + 1;
    if (i == 0)
        s->ops[s->n_ops++] = (struct tern_slot_op){ .kind = TERN_OP_OPEN, .gen = 1 };
    else if (pos == 0)
        s->ops[s->n_ops++] = (struct tern_slot_op){ .kind = TERN_OP_REWIND, .gen = 1 };
    s->runs[s->n_runs++] = (struct tern_run){ 0, 1, pos, 1, 1 };
    s->n_rows = 1;
    tern_boundary_encode(TERN_BOUNDARY_DEFAULT, &lab.kern, x, n, s->payload);
    free(x);
}

/* The result of the step at hand, as soon as it is there. */
static void await_result(struct lab_peer *p)
{
    struct tern_step *s = lab.step;
    Tern__Header *h = NULL;

    tern_step_clear(s);
    do {
        struct pollfd fds[TERN_CLIENT_FDS];

        if (!tern_client_poll_fds(p->client, fds))
            assert_true(poll(fds, TERN_CLIENT_FDS, RESULT_MS) > 0);
        h = lab_peer_next(p, 0);
    } while (!h || h->body_case != TERN__HEADER__BODY_RESULT);
    lab.header_bytes = (uint32_t)zmq_msg_size(&p->m.header);
    assert_ok(
        tern_wire_get_step(h, zmq_msg_data(&p->m.payload), zmq_msg_size(&p->m.payload), 1, s, &unit_err));
    assert_int_equal(s->n_failed, 0);
    assert_int_equal(s->n_times, lab.n_workers);
}

static void run_steps(void)
{
    const uint32_t last = lab.n_workers - 1;

    for (uint32_t i = 0; i < lab.n_steps + WARM_UP; i++) {
        uint32_t at = i < WARM_UP ? 0 : i - WARM_UP;
        uint64_t end = 0, home;

        fill_step(i);
        end = tern_now_ns() / 1000;
        lab_peer_step(&lab.peers[0], lab.step);
        await_result(&lab.peers[last]);
        home = tern_now_ns() / 1000;
        for (uint32_t k = 0; k < lab.n_workers; k++) {
            const struct tern_stage_time *t = &lab.step->times[k];

            lab.out[k][at] = (double)t->t_in_us - (double)end;
            lab.in[k][at] = t->queue_us;
            lab.hop[k][at] = lab.out[k][at] + lab.in[k][at];
            lab.compute[k][at] = t->compute_us;
            end = t->t_in_us + t->queue_us + t->compute_us;
            lab.end_us[k][at] = end;
        }
        lab.out[last + 1][at] = (double)home - (double)end;
    }
}

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

static double print_part(const char *name, double *v)
{
    qsort(v, lab.n_steps, sizeof *v, by_size);
    printf("%-28s %8.0f %8.0f %8.0f %8.0f\n", name, v[lab.n_steps / 10], v[lab.n_steps / 2],
           v[lab.n_steps * 9 / 10], v[lab.n_steps * 99 / 100]);
    return v[lab.n_steps / 2];
}

/* Of Soon: version, epoch, layout and an empty body. */
static uint32_t soon_bytes(void)
{
    Tern__Header h = TERN__HEADER__INIT;
    Tern__Soon b = TERN__SOON__INIT;

    h.version = TERN_WIRE_VERSION;
    h.epoch = h.layout = 1;
    h.body_case = TERN__HEADER__BODY_SOON;
    h.soon = &b;
    return (uint32_t)tern__header__get_packed_size(&h);
}

/* What goes over TCP for a step of a header and a payload, and for its announcement: CURVE wraps each frame,
 * ZMTP counts it in 1 or 8 bytes behind a byte of flags. */
static uint32_t wire_bytes(uint32_t header, uint32_t payload)
{
    const uint32_t sizes[3] = { header, payload, soon_bytes() };
    uint32_t sum = 0;

    for (int i = 0; i < 3; i++) {
        uint32_t n = sizes[i] + 33;

        sum += n + (n > 255 ? 9 : 2);
    }
    return sum;
}

/* Moments of the steps behind the warm-up, by kind: the last record of a kind belongs to the last step, and
 * so on.  The first ones may be of an assignment. */
static void read_trace(uint32_t worker, pid_t pid)
{
    uint32_t n[HOP_N_KINDS] = { 0 };
    struct hop_record r;
    char path[96];
    FILE *f;

    snprintf(path, sizeof path, "%s.%d", lab.trace_prefix, (int)pid);
    f = fopen(path, "rb");
    if (!f)
        fail_msg("no trace in %s", path);
    while (fread(&r, sizeof r, 1, f) == 1) {
        assert_true(r.kind < HOP_N_KINDS);
        n[r.kind]++;
    }
    rewind(f);
    while (fread(&r, sizeof r, 1, f) == 1) {
        if (n[r.kind] <= lab.n_steps)
            lab.trace_ns[worker][r.kind][lab.n_steps - n[r.kind]] = r.ns;
        n[r.kind]--;
    }
    fclose(f);
    unlink(path);
}

/* From one moment to another, of every step. */
static void print_span(const char *name, const uint64_t *from_ns, const uint64_t *to_ns)
{
    double *v = calloc(lab.n_steps, sizeof *v);

    assert_non_null(v);
    for (uint32_t i = 0; i < lab.n_steps; i++)
        v[i] = ((double)to_ns[i] - (double)from_ns[i]) / 1000.0;
    (void)print_part(name, v);
    free(v);
}

static void report_parts(uint32_t from)
{
    uint64_t **a = lab.trace_ns[from], **b = lab.trace_ns[from + 1];
    uint64_t *end = calloc(lab.n_steps, sizeof *end);

    assert_non_null(end);
    for (uint32_t i = 0; i < lab.n_steps; i++) {
        end[i] = lab.end_us[from][i] * 1000;
        if (a[HOP_SEND_WOKEN][i] < end[i])
            a[HOP_SEND_WOKEN][i] = end[i]; /* it was awake, or need not be woken */
    }
    printf("parts of w%u -> w%u\n", from + 1, from + 2);
    print_span("  sending thread awake", end, a[HOP_SEND_WOKEN]);
    print_span("  header made and sent", a[HOP_SEND_WOKEN], a[HOP_SEND]);
    print_span("  zmq_send of the row", a[HOP_SEND], a[HOP_SEND_DONE]);
    print_span("  zmq thread up, encrypted", a[HOP_SEND], a[HOP_TCP_SEND]);
    print_span("  send()", a[HOP_TCP_SEND], a[HOP_TCP_SEND_DONE]);
    print_span("  send() and recv()", a[HOP_TCP_SEND], b[HOP_TCP_RECV]);
    print_span("  decrypted, receiver up", b[HOP_TCP_RECV], b[HOP_RECV_WOKEN]);
    print_span("  received", b[HOP_RECV_WOKEN], b[HOP_RECV_DONE]);
    free(end);
}

static void report(void)
{
    uint32_t bytes = wire_bytes(lab.header_bytes, lab.row_bytes);
    double worst = 0;
    char name[64];

    printf("%u steps of one row of %u bytes; with everything %u on the wire, %.0f allowed\n", lab.n_steps,
           lab.row_bytes, bytes, 1.10 * lab.row_bytes + 96);
    printf("%-28s %8s %8s %8s %8s\n", "microseconds", "p10", "p50", "p90", "p99");
    for (uint32_t k = 0; k < lab.n_workers; k++) {
        double p50;

        if (k == 0)
            snprintf(name, sizeof name, "hop coordinator -> w1");
        else
            snprintf(name, sizeof name, "hop w%u -> w%u", k, k + 1);
        p50 = print_part(name, lab.hop[k]);
        worst = k > 0 && p50 > worst ? p50 : worst;
        (void)print_part("  out: until it is there", lab.out[k]);
        (void)print_part("  in: until computing", lab.in[k]);
        snprintf(name, sizeof name, "w%u computes", k + 1);
        (void)print_part(name, lab.compute[k]);
    }
    (void)print_part("hop home", lab.out[lab.n_workers]);
    assert_true(bytes <= 1.10 * lab.row_bytes + 96);
    if (lab.limit_us > 0 && worst > lab.limit_us)
        fail_msg("the median of a hop is %.0f us, above %.0f", worst, lab.limit_us);
}

static void measure(void **state)
{
    pid_t pids[MAX_WORKERS];

    (void)state;
    if (lab.trace) {
        snprintf(lab.trace_prefix, sizeof lab.trace_prefix, "/tmp/tern-hops-%d", (int)getpid());
        setenv("TERN_HOP_TRACE", lab.trace_prefix, 1);
        setenv("LD_PRELOAD", lab.trace, 1);
    }
    start_workers();
    unsetenv("LD_PRELOAD");
    assign_layers();
    run_steps();
    for (uint32_t i = 0; i < lab.n_workers; i++) {
        lab_peer_bye(&lab.peers[i]);
        lab_peer_close(&lab.peers[i]);
        pids[i] = lab.ternd[i].pid;
        assert_int_equal(lab_ternd_stop(&lab.ternd[i]), 0);
    }
    report();
    for (uint32_t i = 0; lab.trace && i < lab.n_workers; i++)
        read_trace(i, pids[i]);
    for (uint32_t i = 0; lab.trace && i + 1 < lab.n_workers; i++)
        report_parts(i);
}

static double *column(void)
{
    double *v = calloc(lab.n_steps, sizeof *v);

    assert_non_null(v);
    return v;
}

static uint64_t *moments(void)
{
    uint64_t *v = calloc(lab.n_steps, sizeof *v);

    assert_non_null(v);
    return v;
}

static int set_up(void **state)
{
    (void)state;
    tern_log_set_level(TERN_LOG_WARN);
    assert_ok(tern_keys_init(&unit_err));
    assert_ok(tern_key_generate(&lab.ours, &unit_err));
    assert_ok(tern_gguf_open(lab.model, &lab.gguf, &unit_err));
    assert_ok(tern_arch_read(lab.gguf, &lab.arch, &unit_err));
    tern_kernels_init(&lab.kern, tern_cpu_detect());
    assert_ok(tern_pool_new(1, &lab.pool, &unit_err));
    assert_ok(tern_identity_compute(lab.gguf, &lab.arch, TERN_IDENTITY_LAYERS, lab.pool, NULL, NULL, &lab.id,
                                    &unit_err));
    lab.row_bytes = (uint32_t)tern_boundary_row_bytes(TERN_BOUNDARY_DEFAULT, lab.arch.n_embd);
    assert_ok(tern_step_new(1, lab.row_bytes, &lab.step, &unit_err));
    for (uint32_t i = 0; i < lab.n_workers; i++) {
        lab.in[i] = column();
        lab.hop[i] = column();
        lab.compute[i] = column();
        lab.end_us[i] = moments();
        for (int k = 0; k < HOP_N_KINDS; k++)
            lab.trace_ns[i][k] = moments();
    }
    for (uint32_t i = 0; i <= lab.n_workers; i++)
        lab.out[i] = column();
    return 0;
}

static int clear_up(void **state)
{
    (void)state;
    tern_step_free(&lab.step);
    tern_identity_free(&lab.id);
    tern_pool_free(&lab.pool);
    tern_gguf_close(&lab.gguf);
    for (uint32_t i = 0; i < lab.n_workers; i++) {
        tern_key_wipe(&lab.keys[i]);
        free(lab.in[i]);
        free(lab.hop[i]);
        free(lab.compute[i]);
        free(lab.end_us[i]);
        for (int k = 0; k < HOP_N_KINDS; k++)
            free(lab.trace_ns[i][k]);
    }
    for (uint32_t i = 0; i <= lab.n_workers; i++)
        free(lab.out[i]);
    tern_key_wipe(&lab.ours);
    return 0;
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(measure) };

    if (argc < 4 || atoi(argv[2]) < 1 || atoi(argv[2]) > MAX_WORKERS || atoi(argv[3]) < 1) {
        fprintf(stderr, "usage: lab_hops MODEL WORKERS(1-%d) STEPS [LIMIT_US [THREADS [TRACE]]]\n",
                MAX_WORKERS);
        return 64;
    }
    lab.model = argv[1];
    lab.n_workers = (uint32_t)atoi(argv[2]);
    lab.n_steps = (uint32_t)atoi(argv[3]);
    lab.limit_us = argc > 4 ? atof(argv[4]) : 0;
    lab.threads = argc > 5 ? argv[5] : "1";
    lab.trace = argc > 6 ? argv[6] : NULL;
    return cmocka_run_group_tests_name("hops", tests, set_up, clear_up);
}
