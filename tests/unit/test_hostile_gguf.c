/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The real model's file cut at 200 places, and with 2,000 single bytes of its header and metadata changed:
 * each is refused with one sentence that names it, or loads.  A crash, a hang or a read past the end (each
 * case lies in a heap block of its exact size) ends the test.
 */
#include "unit/unit.h"

#include "engine/model.h"
#include "engine/tokenizer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define N_CUTS           200
#define N_CORRUPTIONS    2000
#define SECONDS_PER_CASE 20

static uint8_t *model; /* the file */
static size_t model_size, data_start, data_end;
static struct tern_kernels kern;
static struct tern_pool *pool;
static unsigned n_loaded, n_refused;

static int set_up(void **state)
{
    const char *path = TERN_SOURCE_DIR "/deploy/models/fable.gguf";
    struct tern_gguf *g;

    (void)state;
    if (tern_gguf_open(path, &g, &unit_err) || tern_pool_new(2, &pool, &unit_err))
        return 1;
    model_size = g->size;
    model = malloc(model_size);
    memcpy(model, g->bytes, model_size);
    data_start = model_size;
    for (size_t i = 0; i < g->n_tensors; i++) {
        size_t at = (size_t)(g->tensors[i].data - g->bytes);

        data_start = at < data_start ? at : data_start;
        data_end = at + g->tensors[i].bytes > data_end ? at + g->tensors[i].bytes : data_end;
    }
    tern_gguf_close(&g);
    tern_kernels_init(&kern, TERN_CPU_REF);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    free(model);
    tern_pool_free(&pool);
    return 0;
}

/* What a coordinator does with a file, and one layer of a worker. */
static enum tern_status use(const uint8_t *bytes, size_t n, uint32_t seed)
{
    struct tern_gguf *g = NULL;
    struct tern_tokenizer *t = NULL;
    struct tern_model *m = NULL;
    struct tern_arch arch;
    struct tern_model_options o = { .with_embd = true };
    enum tern_status st = tern_gguf_parse("hostile.gguf", bytes, n, &g, &unit_err);

    if (!st)
        st = tern_arch_read(g, &arch, &unit_err);
    if (!st)
        st = tern_tokenizer_new(g, NULL, &t, &unit_err);
    if (!st) {
        o.first = seed % arch.n_layers;
        o.last = o.first + 1;
        st = tern_model_load(g, &arch, &kern, pool, &o, &m, &unit_err);
    }
    tern_model_free(&m);
    tern_tokenizer_free(&t);
    tern_gguf_close(&g);
    return st;
}

/* Runs the case of n bytes with byte `at` (if below n) exchanged. */
static enum tern_status run_case(size_t n, size_t at, uint8_t byte, uint32_t seed)
{
    uint8_t *bytes = malloc(n ? n : 1), *end = bytes + n;
    enum tern_status st;
    size_t len;

    memcpy(bytes, model, n);
    if (at < n)
        bytes[at] = byte;
    memset(&unit_err, 0, sizeof unit_err);
    alarm(SECONDS_PER_CASE);
    st = use(end - n, n, seed);
    alarm(0);
    free(bytes);
    if (st == TERN_OK) {
        n_loaded++;
        return st;
    }
    n_refused++;
    len = strlen(unit_err.text);
    if (st < TERN_ERR_USAGE || unit_err.status != st || len < 20 || strchr(unit_err.text, '\n') ||
        !strstr(unit_err.text, "hostile.gguf"))
        fail_msg("%zu bytes, byte %zu = %u: status %s, sentence '%s'", n, at, byte, tern_status_name(st),
                 unit_err.text);
    return st;
}

static void test_cut(void **state)
{
    uint64_t rng = 0x7465726e;

    (void)state;
    for (uint32_t i = 0; i < N_CUTS; i++) {
        /* A third in the first bytes, a third in the metadata, a third anywhere. */
        size_t range = i % 3 == 0 ? 1024 : i % 3 == 1 ? data_start : data_end;
        size_t n = i < 24 ? i : i == 24 ? data_end - 1 : (size_t)(unit_random(&rng) % range);

        if (run_case(n, n, 0, i) == TERN_OK)
            fail_msg("the model cut to %zu of %zu bytes was loaded", n, data_end);
    }
}

static void test_corrupt(void **state)
{
    uint64_t rng = 0x66726565;

    (void)state;
    n_loaded = n_refused = 0;
    for (uint32_t i = 0; i < N_CORRUPTIONS; i++) {
        uint64_t r = unit_random(&rng);
        /* Header and hyper-parameters, the tensor directory in front of the data, and anywhere in between:
         * most of it is text. */
        size_t at = i % 3 == 0 ? r % 1024 : i % 3 == 1 ? data_start - 1 - r % 5000 : r % data_start;
        uint8_t old = model[at], byte = (uint8_t)(r >> 40);

        if (i % 4 == 0)
            byte = (uint8_t)(old ^ 1u << (r >> 48) % 8);
        else if (i % 4 == 1)
            byte = i % 8 == 1 ? 0xff : 0;
        if (byte == old)
            byte ^= 0x80;
        (void)run_case(model_size, at, byte, i);
    }
    print_message("%u corrupted files were refused, %u loaded\n", n_refused, n_loaded);
    assert_int_equal(n_loaded + n_refused, N_CORRUPTIONS);
    assert_true(n_refused > N_CORRUPTIONS / 5 && n_loaded > N_CORRUPTIONS / 20); /* both ends were reached */
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_cut), cmocka_unit_test(test_corrupt) };

    return cmocka_run_group_tests(tests, set_up, tear_down);
}
