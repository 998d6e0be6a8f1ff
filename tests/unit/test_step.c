/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Steps: what is consistent, how large ones are cut into messages, and what a receiver refuses.
 */
#include "proto/step.h"
#include "unit/wire_arena.h"

#include <stdlib.h>
#include <string.h>

#define EPOCH  42
#define LAYOUT 3

static struct tern_step *new_step(uint32_t max_rows, uint32_t row_bytes)
{
    struct tern_step *s;
    struct tern_err err;

    assert_int_equal(tern_step_new(max_rows, row_bytes, &s, &err), TERN_OK);
    return s;
}

/* n_rows rows in runs of up to 9, with everything else that can ride along. */
static void fill(struct tern_step *s, uint32_t n_rows)
{
    uint32_t left = n_rows;

    tern_step_clear(s);
    s->step = 17;
    s->n_ops = 3;
    s->ops[0] = (struct tern_slot_op){ TERN_OP_OPEN, 5, 1, 0, 0, 0 };
    s->ops[1] = (struct tern_slot_op){ TERN_OP_FORK, 6, 2, 40, 5, 1 };
    s->ops[2] = (struct tern_slot_op){ TERN_OP_FREE, 255, UINT32_MAX, 0, 0, 0 };
    while (left > 0) {
        uint32_t n = left > 9 ? 9 : left;

        s->runs[s->n_runs] = (struct tern_run){ s->n_runs + 100, 7, 3 * s->n_runs, n, n / 2 };
        s->n_runs++;
        left -= n;
    }
    s->n_failed = 1;
    s->failed[0] = (struct tern_failed){ 255, UINT32_MAX, TERN_FAILED_PAGES, 4 };
    s->n_times = 2;
    s->times[0] = (struct tern_stage_time){ 100, 2, 3000 };
    s->times[1] = (struct tern_stage_time){ 101, 0, UINT32_MAX };
    s->n_rows = n_rows;
    for (size_t i = 0; i < (size_t)n_rows * s->row_bytes; i++)
        s->payload[i] = (uint8_t)(i * 31 + i / 997);
}

struct message {
    uint8_t header[TERN_MAX_HEADER_BYTES];
    size_t header_len;
    const uint8_t *payload;
    size_t payload_len;
};

static void put(const struct tern_step *s, bool result, uint32_t part, struct message *m)
{
    struct tern_err err;

    if (tern_wire_put_step(s, result, EPOCH, LAYOUT, part, m->header, sizeof m->header, &m->header_len,
                           &m->payload, &m->payload_len, &err))
        fail_msg("%s", err.text);
}

static Tern__Header *open_header(const struct message *m)
{
    Tern__Header *h;
    struct tern_err err;

    tern_arena_reset(&arena);
    if (tern_wire_get(m->header, m->header_len, &arena, &h, &err))
        fail_msg("%s", err.text);
    assert_int_equal(h->epoch, EPOCH);
    assert_int_equal(h->layout, LAYOUT);
    return h;
}

static void same_step(const struct tern_step *a, const struct tern_step *b, bool result)
{
    assert_int_equal(a->step, b->step);
    assert_int_equal(a->n_rows, b->n_rows);
    assert_int_equal(a->n_failed, b->n_failed);
    assert_memory_equal(a->failed, b->failed, a->n_failed * sizeof a->failed[0]);
    assert_int_equal(a->n_times, b->n_times);
    assert_memory_equal(a->times, b->times, a->n_times * sizeof a->times[0]);
    if (a->n_rows > 0)
        assert_memory_equal(a->payload, b->payload, (size_t)a->n_rows * a->row_bytes);
    if (result) {
        assert_int_equal(b->n_ops, 0);
        assert_int_equal(b->n_runs, 0);
        return;
    }
    assert_int_equal(a->n_ops, b->n_ops);
    assert_memory_equal(a->ops, b->ops, a->n_ops * sizeof a->ops[0]);
    assert_int_equal(a->n_runs, b->n_runs);
    assert_memory_equal(a->runs, b->runs, a->n_runs * sizeof a->runs[0]);
}

static void test_round_trip(void **state)
{
    static const uint32_t shapes[][2] = { { 1, 1 },      { 1, 262144 }, { 3, 262144 },  { 2, 131072 },
                                          { 5, 131072 }, { 512, 2880 }, { 512, 10240 }, { 512, 16384 },
                                          { 91, 2880 },  { 92, 2880 },  { 0, 2880 },    { 4, 100000 } };
    static struct message m;

    (void)state;
    for (size_t i = 0; i < 2 * (sizeof shapes / sizeof shapes[0]); i++) {
        uint32_t n_rows = shapes[i / 2][0], row_bytes = shapes[i / 2][1], max = n_rows ? n_rows : 1;
        struct tern_step *a = new_step(max, row_bytes), *b = new_step(max, row_bytes);
        bool result = i % 2;
        size_t total = 0;
        struct tern_err err;

        fill(a, n_rows);
        for (uint32_t part = 0; part < tern_wire_step_parts(a); part++) {
            bool last = part + 1 == tern_wire_step_parts(a);
            enum tern_status st;

            put(a, result, part, &m);
            assert_true(m.payload_len <= TERN_MAX_PAYLOAD_BYTES);
            assert_true(m.payload_len % row_bytes == 0);
            total += m.payload_len;
            st = tern_wire_get_step(open_header(&m), m.payload, m.payload_len, max, b, &err);
            if (st != (last ? TERN_OK : TERN_AGAIN))
                fail_msg("shape %zu, part %u: %s", i, part, err.text);
        }
        assert_int_equal(total, (size_t)n_rows * row_bytes);
        same_step(a, b, result);
        assert_int_equal(b->rows_in, n_rows);
        tern_step_free(&a);
        tern_step_free(&b);
        assert_null(a);
    }
}

/* As many of everything as there can be: header and arena must hold it. */
static void test_largest(void **state)
{
    static struct message m;
    struct tern_step *a = new_step(TERN_MAX_STEP_ROWS, 512), *b = new_step(TERN_MAX_STEP_ROWS, 512);
    struct tern_err err;

    (void)state;
    a->step = UINT64_MAX;
    a->n_ops = TERN_MAX_STEP_OPS;
    a->n_runs = TERN_MAX_STEP_RUNS;
    a->n_times = TERN_MAX_WORKERS;
    a->n_rows = TERN_MAX_STEP_ROWS;
    for (uint32_t i = 0; i < TERN_MAX_STEP_OPS; i++)
        a->ops[i] =
            (struct tern_slot_op){ TERN_OP_FORK, 192 + i, UINT32_MAX, UINT32_MAX, 192 + i, UINT32_MAX };
    for (uint32_t i = 0; i < TERN_MAX_STEP_RUNS; i++)
        a->runs[i] = (struct tern_run){ 128 + i, UINT32_MAX, TERN_MAX_CONTEXT - 8, 8, 8 };
    for (uint32_t i = 0; i < TERN_MAX_STEP_RUNS + TERN_MAX_STEP_OPS; i++)
        tern_step_add_failed(a, 128 + i, UINT32_MAX, TERN_FAILED_PAGES, UINT32_MAX);
    for (uint32_t i = 0; i < TERN_MAX_WORKERS; i++)
        a->times[i] = (struct tern_stage_time){ UINT32_MAX, UINT32_MAX, UINT32_MAX };
    assert_int_equal(tern_step_check(a, &err), TERN_OK);
    put(a, false, 0, &m);
    assert_int_equal(tern_wire_get_step(open_header(&m), m.payload, m.payload_len, 512, b, &err), TERN_OK);
    same_step(a, b, false);
    /* A failed sequence is noted once. */
    tern_step_add_failed(a, 128, UINT32_MAX, TERN_FAILED_NUMERIC, 0);
    assert_int_equal(a->n_failed, TERN_MAX_STEP_RUNS + TERN_MAX_STEP_OPS);
    tern_step_free(&a);
    tern_step_free(&b);
}

static void test_parts_out_of_order(void **state)
{
    static struct message m;
    struct tern_step *a = new_step(512, 2880), *b = new_step(512, 2880);
    struct tern_err err;
    uint32_t n = 0;

    (void)state;
    fill(a, 512);
    n = tern_wire_step_parts(a);
    assert_int_equal(n, 6);
    for (uint32_t due = 0; due < n; due++) {
        /* Every part but the one that is due is refused, and changes nothing. */
        for (uint32_t part = 0; part < n; part++) {
            if (part == due)
                continue;
            put(a, false, part, &m);
            assert_int_equal(tern_wire_get_step(open_header(&m), m.payload, m.payload_len, 512, b, &err),
                             TERN_ERR_FORMAT);
            assert_int_equal(b->parts_in, due);
        }
        /* So is the due part of another step. */
        if (due > 0) {
            a->step++;
            put(a, false, due, &m);
            assert_int_equal(tern_wire_get_step(open_header(&m), m.payload, m.payload_len, 512, b, &err),
                             TERN_ERR_FORMAT);
            a->step--;
        }
        put(a, false, due, &m);
        assert_int_equal(tern_wire_get_step(open_header(&m), m.payload, m.payload_len, 512, b, &err),
                         due + 1 < n ? TERN_AGAIN : TERN_OK);
    }
    same_step(a, b, false);
    /* The holder has not cleared it. */
    put(a, false, 0, &m);
    assert_int_equal(tern_wire_get_step(open_header(&m), m.payload, m.payload_len, 512, b, &err),
                     TERN_ERR_FORMAT);
    tern_step_free(&a);
    tern_step_free(&b);
}

static void test_lengths_and_counts(void **state)
{
    static struct message m;
    struct tern_step *a = new_step(100, 2880), *b = new_step(100, 2880), *narrow = new_step(100, 64);
    struct tern_err err;
    Tern__Header *h;

    (void)state;
    fill(a, 100);
    put(a, false, 0, &m);
    assert_int_equal(tern_wire_get_step(open_header(&m), m.payload, m.payload_len - 1, 100, b, &err),
                     TERN_ERR_FORMAT);
    assert_int_equal(tern_wire_get_step(open_header(&m), m.payload, m.payload_len + 1, 100, b, &err),
                     TERN_ERR_FORMAT);
    assert_int_equal(tern_wire_get_step(open_header(&m), NULL, 0, 100, b, &err), TERN_ERR_FORMAT);
    assert_int_equal(tern_wire_get_step(open_header(&m), m.payload, m.payload_len, 99, b, &err),
                     TERN_ERR_FORMAT);
    assert_int_equal(tern_wire_get_step(open_header(&m), m.payload, m.payload_len, 100, narrow, &err),
                     TERN_ERR_FORMAT);

    /* Every number of the header in turn. */
    for (unsigned i = 0; i < 12; i++) {
        h = open_header(&m);
        switch (i) {
        case 0: h->step->n_rows++; break;
        case 1: h->step->n_rows--; break;
        case 2: h->step->n_part_rows--; break;
        case 3: h->step->first_row = 1; break;
        case 4: h->step->n_parts++; break;
        case 5: h->step->n_parts = 0; break;
        case 6: h->step->part = UINT32_MAX; break;
        case 7: h->step->n_rows = UINT32_MAX; break;
        case 8: h->step->runs[0]->n--; break;
        case 9: h->step->n_runs--; break;
        case 10: h->step->runs[3]->slot = h->step->runs[2]->slot; break;
        default: h->step->ops[0]->kind = 99; break;
        }
        assert_int_equal(tern_wire_get_step(h, m.payload, m.payload_len, 100, b, &err), TERN_ERR_FORMAT);
        assert_int_equal(b->parts_in, 0);
        assert_int_equal(b->n_rows, 0);
    }
    /* Another body. */
    h = open_header(&m);
    h->body_case = TERN__HEADER__BODY_PING;
    assert_int_equal(tern_wire_get_step(h, m.payload, m.payload_len, 100, b, &err), TERN_ERR_FORMAT);
    tern_step_free(&a);
    tern_step_free(&b);
    tern_step_free(&narrow);
}

/* Only part 0 carries more than rows. */
static void test_heavy_part(void **state)
{
    static struct message m;
    struct tern_step *a = new_step(512, 2880), *b = new_step(512, 2880);
    Tern__StageTime time = TERN__STAGE_TIME__INIT, *times[1] = { &time };
    struct tern_err err;
    Tern__Header *h;

    (void)state;
    fill(a, 512);
    put(a, false, 0, &m);
    assert_int_equal(tern_wire_get_step(open_header(&m), m.payload, m.payload_len, 512, b, &err), TERN_AGAIN);
    put(a, false, 1, &m);
    h = open_header(&m);
    h->step->n_times = 1;
    h->step->times = times;
    assert_int_equal(tern_wire_get_step(h, m.payload, m.payload_len, 512, b, &err), TERN_ERR_FORMAT);
    h->step->n_times = 0;
    assert_int_equal(tern_wire_get_step(h, m.payload, m.payload_len, 512, b, &err), TERN_AGAIN);
    tern_step_free(&a);
    tern_step_free(&b);
}

static void test_check(void **state)
{
    struct tern_step *s = new_step(50, 4);
    struct tern_err err;

    (void)state;
    fill(s, 50);
    assert_int_equal(tern_step_check(s, &err), TERN_OK);
#define REFUSED(change)                                                                                      \
    do {                                                                                                     \
        fill(s, 50);                                                                                         \
        change;                                                                                              \
        assert_int_equal(tern_step_check(s, &err), TERN_ERR_FORMAT);                                         \
    } while (0)
    REFUSED(s->ops[0].kind = 0);
    REFUSED(s->ops[0].kind = TERN_OP_FORK + 1);
    REFUSED(s->ops[0].slot = TERN_MAX_SLOTS);
    REFUSED(s->ops[1].from_slot = TERN_MAX_SLOTS);
    REFUSED(s->n_ops = TERN_MAX_STEP_OPS + 1);
    REFUSED(s->n_runs = TERN_MAX_STEP_RUNS + 1);
    REFUSED(s->runs[0].slot = TERN_MAX_SLOTS);
    REFUSED(s->runs[0].slot = UINT32_MAX);
    REFUSED(s->runs[1].slot = s->runs[0].slot);
    REFUSED(s->runs[0].n = 0);
    REFUSED(s->runs[0].n++);
    REFUSED(s->runs[0].n = UINT32_MAX);
    REFUSED((s->runs[0].n = 18, s->runs[1].n = 0));
    REFUSED(s->runs[0].n_want = s->runs[0].n + 1);
    REFUSED(s->runs[0].pos = TERN_MAX_CONTEXT);
    REFUSED(s->runs[0].pos = UINT32_MAX - 2);
    REFUSED(s->n_rows--);
    REFUSED(s->n_runs = 0);
    REFUSED(s->n_times = TERN_MAX_WORKERS + 1);
    REFUSED(s->n_failed = TERN_MAX_STEP_RUNS + TERN_MAX_STEP_OPS + 1);
    REFUSED(s->failed[0].code = 0);
    REFUSED(s->failed[0].code = TERN_FAILED_PAGES + 1);
    REFUSED(s->failed[0].slot = TERN_MAX_SLOTS);
    REFUSED(s->failed[0].gen = 1); /* not of this step */
    REFUSED((s->failed[1] = s->failed[0], s->n_failed = 2));
#undef REFUSED
    /* Operations alone are a step; so is nothing at all. */
    fill(s, 0);
    assert_int_equal(tern_step_check(s, &err), TERN_OK);
    tern_step_clear(s);
    assert_int_equal(tern_step_check(s, &err), TERN_OK);
    /* OPEN says nothing in from_slot. */
    fill(s, 50);
    s->ops[0].from_slot = UINT32_MAX;
    assert_int_equal(tern_step_check(s, &err), TERN_OK);
    tern_step_free(&s);
}

static void test_new(void **state)
{
    static const uint32_t bad[][2] = { { 0, 4 },
                                       { 1, 0 },
                                       { TERN_MAX_STEP_ROWS + 1, 4 },
                                       { 1, TERN_MAX_PAYLOAD_BYTES + 1 },
                                       { UINT32_MAX, UINT32_MAX } };
    struct tern_step *s = NULL;
    struct tern_err err;

    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        assert_int_equal(tern_step_new(bad[i][0], bad[i][1], &s, &err), TERN_ERR_USAGE);
        assert_null(s);
    }
    tern_step_free(&s);
    s = new_step(3, 5);
    s->user = &s;
    s->bytes_in = 9;
    fill(s, 3);
    assert_null(s->user);
    assert_int_equal(s->bytes_in, 0);
    assert_int_equal(s->payload_cap, 15);
    tern_step_free(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_largest),
        cmocka_unit_test(test_parts_out_of_order),
        cmocka_unit_test(test_lengths_and_counts),
        cmocka_unit_test(test_heavy_part),
        cmocka_unit_test(test_check),
        cmocka_unit_test(test_new),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
