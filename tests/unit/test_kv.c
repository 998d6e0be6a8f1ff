/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The page table against a naive model of it, and each refusal by itself.
 */
#include "unit/unit.h"

#include "engine/kv.h"

#include <stdlib.h>
#include <string.h>

static void test_append_and_free(void **state)
{
    struct tern_kv_table *t;
    uint32_t a, b, len;

    (void)state;
    assert_ok(tern_kv_table_new(4, 8, 200, &t, &unit_err));
    assert_ok(tern_kv_open(t, 1, 5, &unit_err));
    assert_ok(tern_kv_append(t, 1, 5, 0, 33, &a, &b, &unit_err));
    assert_int_equal(a, b);
    assert_int_equal(tern_kv_pages_free(t), 6);
    assert_true(tern_kv_length(t, 1, 5, &len));
    assert_int_equal(len, 33);
    assert_ok(tern_kv_append(t, 1, 5, 33, 31, &a, &b, &unit_err));
    assert_int_equal(tern_kv_pages_free(t), 6); /* 64 positions are two pages */
    assert_ok(tern_kv_rewind(t, 1, 5, 32, &unit_err));
    assert_int_equal(tern_kv_pages_free(t), 7);
    assert_ok(tern_kv_free(t, 1, 5, &unit_err));
    assert_int_equal(tern_kv_pages_free(t), 8);
    tern_kv_table_free(&t);
    assert_null(t);
}

static void test_refusals_leave_the_table_alone(void **state)
{
    struct tern_kv_table *t;
    uint32_t a, b, len;

    (void)state;
    assert_ok(tern_kv_table_new(2, 4, 100, &t, &unit_err));
    assert_ok(tern_kv_open(t, 0, 3, &unit_err));
    assert_int_equal(tern_kv_open(t, 0, 4, &unit_err), TERN_ERR_STATE); /* in use */
    assert_int_equal(tern_kv_open(t, 2, 1, &unit_err), TERN_ERR_STATE); /* no such slot */
    assert_ok(tern_kv_append(t, 0, 3, 0, 40, &a, &b, &unit_err));
    /* former generation */
    assert_int_equal(tern_kv_append(t, 0, 2, 40, 1, &a, &b, &unit_err), TERN_ERR_STATE);
    assert_int_equal(tern_kv_append(t, 0, 3, 39, 1, &a, &b, &unit_err), TERN_ERR_STATE);  /* wrong position */
    assert_int_equal(tern_kv_append(t, 0, 3, 40, 61, &a, &b, &unit_err), TERN_ERR_LIMIT); /* context */
    assert_int_equal(tern_kv_append(t, 0, 3, 40, UINT32_MAX, &a, &b, &unit_err), TERN_ERR_LIMIT);
    assert_int_equal(tern_kv_rewind(t, 0, 3, 41, &unit_err), TERN_ERR_STATE);
    assert_int_equal(tern_kv_free(t, 1, 3, &unit_err), TERN_ERR_STATE);
    assert_true(tern_kv_length(t, 0, 3, &len));
    assert_int_equal(len, 40);
    assert_ok(tern_kv_open(t, 1, 1, &unit_err));
    assert_int_equal(tern_kv_append(t, 1, 1, 0, 65, &a, &b, &unit_err), TERN_ERR_LIMIT); /* pages: 2 left */
    assert_int_equal(tern_kv_pages_free(t), 2);
    tern_kv_fail(t, 1, 1);
    assert_int_equal(tern_kv_append(t, 1, 1, 0, 1, &a, &b, &unit_err), TERN_ERR_NUMERIC);
    assert_ok(tern_kv_free(t, 1, 1, &unit_err));
    assert_int_equal(tern_kv_open(t, 1, 1, &unit_err), TERN_ERR_STATE); /* a generation comes once */
    tern_kv_table_free(&t);
}

/* Fork and copy-on-write, with contents: every slot's positions carry a number that identifies them. */
struct naive {
    uint32_t len;
    uint32_t gen;
    int live;
    uint32_t tag[256]; /* what was written at each position */
};

static uint32_t read_tag(const struct tern_kv_store *s, const struct tern_kv_table *t, uint32_t slot,
                         uint32_t pos)
{
    const uint16_t *k =
        (uint16_t *)(void *)tern_kv_k(s, tern_kv_pages(t, slot)[pos / TERN_PAGE], 0, 0) + pos % TERN_PAGE * 2;

    return (uint32_t)k[0] | (uint32_t)k[1] << 16;
}

static void write_tag(struct tern_kv_store *s, const struct tern_kv_table *t, uint32_t slot, uint32_t pos,
                      uint32_t tag)
{
    uint16_t *k =
        (uint16_t *)(void *)tern_kv_k(s, tern_kv_pages(t, slot)[pos / TERN_PAGE], 0, 0) + pos % TERN_PAGE * 2;

    k[0] = (uint16_t)tag;
    k[1] = (uint16_t)(tag >> 16);
}

static void check_all(struct tern_kv_table *t, const struct tern_kv_store *s, const struct naive *n,
                      uint32_t slots)
{
    for (uint32_t i = 0; i < slots; i++) {
        uint32_t len;

        assert_int_equal(tern_kv_length(t, i, n[i].gen, &len), n[i].live);
        if (!n[i].live)
            continue;
        assert_int_equal(len, n[i].len);
        for (uint32_t p = 0; p < len; p++)
            assert_int_equal(read_tag(s, t, i, p), n[i].tag[p]);
    }
}

static void test_random_operations(void **state)
{
    enum { SLOTS = 5, PAGES = 20, CTX = 256 };
    struct tern_kv_table *t;
    struct tern_kv_store s;
    static struct naive n[SLOTS];
    uint64_t rng = 12345;
    uint32_t next_tag = 1, gens[SLOTS] = { 0 }, refused = 0;

    (void)state;
    assert_ok(tern_kv_table_new(SLOTS, PAGES, CTX, &t, &unit_err));
    assert_ok(tern_kv_store_new(TERN_KV_F16, PAGES, 1, 1, 2, &s, &unit_err));
    for (int turn = 0; turn < 20000; turn++) {
        uint32_t i = (uint32_t)(unit_random(&rng) % SLOTS), j = (uint32_t)(unit_random(&rng) % SLOTS);
        uint32_t a = 0, b = 0;

        switch (unit_random(&rng) % 6) {
        case 0:
            if (!n[i].live) {
                assert_ok(tern_kv_open(t, i, ++gens[i], &unit_err));
                n[i] = (struct naive){ .live = 1, .gen = gens[i] };
            }
            break;
        case 1:
            if (n[i].live && unit_random(&rng) % 3 == 0) {
                assert_ok(tern_kv_free(t, i, n[i].gen, &unit_err));
                n[i].live = 0;
            }
            break;
        case 2:
            if (n[i].live) {
                uint32_t len = (uint32_t)(unit_random(&rng) % (n[i].len + 1));
                assert_ok(tern_kv_rewind(t, i, n[i].gen, len, &unit_err));
                n[i].len = len;
            }
            break;
        case 3:
            if (n[i].live && !n[j].live) {
                uint32_t len = (uint32_t)(unit_random(&rng) % (n[i].len + 1));
                enum tern_status st = tern_kv_fork(t, j, gens[j] + 1, i, n[i].gen, len, &a, &b, &unit_err);

                if (st == TERN_ERR_LIMIT) {
                    refused++;
                    break;
                }
                assert_ok(st);
                tern_kv_store_copy_page(&s, a, b);
                n[j] = n[i];
                n[j].gen = ++gens[j];
                n[j].len = len;
            }
            break;
        default:
            if (n[i].live) {
                uint32_t more = (uint32_t)(unit_random(&rng) % 50), had = tern_kv_pages_free(t);
                uint32_t need = tern_kv_pages_needed(t, i, n[i].gen, more);
                enum tern_status st = tern_kv_append(t, i, n[i].gen, n[i].len, more, &a, &b, &unit_err);

                if (st == TERN_ERR_LIMIT) {
                    assert_true(need > had || n[i].len + more > CTX);
                    refused++;
                    break;
                }
                assert_ok(st);
                assert_int_equal(had - tern_kv_pages_free(t), need);
                tern_kv_store_copy_page(&s, a, b);
                for (uint32_t k = 0; k < more; k++) {
                    n[i].tag[n[i].len] = next_tag;
                    write_tag(&s, t, i, n[i].len++, next_tag++);
                }
            }
        }
        if (turn % 16 == 0)
            check_all(t, &s, n, SLOTS);
    }
    assert_true(refused > 100); /* the pages did run out */
    for (uint32_t i = 0; i < SLOTS; i++)
        if (n[i].live)
            assert_ok(tern_kv_free(t, i, n[i].gen, &unit_err));
    assert_int_equal(tern_kv_pages_free(t), PAGES);
    tern_kv_store_free(&s);
    tern_kv_table_free(&t);
}

static void test_limits(void **state)
{
    struct tern_kv_table *t = NULL;
    struct tern_kv_store s;

    (void)state;
    assert_int_equal(tern_kv_table_new(0, 1, 1, &t, &unit_err), TERN_ERR_LIMIT);
    assert_int_equal(tern_kv_table_new(TERN_MAX_SLOTS + 1, 1, 1, &t, &unit_err), TERN_ERR_LIMIT);
    assert_int_equal(tern_kv_table_new(1, 0, 1, &t, &unit_err), TERN_ERR_LIMIT);
    assert_int_equal(tern_kv_table_new(1, 1, TERN_MAX_CONTEXT + 1u, &t, &unit_err), TERN_ERR_LIMIT);
    assert_int_equal(tern_kv_store_new(TERN_KV_F16, UINT32_MAX, UINT32_MAX, UINT32_MAX, 512, &s, &unit_err),
                     TERN_ERR_LIMIT);
    assert_null(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_append_and_free),
        cmocka_unit_test(test_refusals_leave_the_table_alone),
        cmocka_unit_test(test_random_operations),
        cmocka_unit_test(test_limits),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
