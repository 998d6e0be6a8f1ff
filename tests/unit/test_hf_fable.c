/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The small trained model in both of its forms: the folder of master weights is the GGUF.
 */
#include "unit/unit.h"

#include "engine/arch.h"
#include "engine/hf.h"
#include "engine/model_file.h"
#include "kernels/kernels.h"
#include "kernels/pack.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Of a matrix of BF16 master weights: ternary values, and what 1 stands for, by the definition. */
static float quantize(const struct tern_tensor *t, int8_t *w)
{
    size_t n = (size_t)(t->ne[0] * t->ne[1]);
    float *v = malloc(n * sizeof *v), s;
    double sum = 0;

    assert_non_null(v);
    tern_dequant_row(TERN_BF16, t->data, n, v);
    for (size_t i = 0; i < n; i++)
        sum += fabs((double)v[i]);
    s = 1.0f / fmaxf((float)(sum / (double)n), 1e-5f);
    for (size_t i = 0; i < n; i++) {
        float x = rintf(v[i] * s); /* half to even */

        w[i] = (int8_t)(x > 1 ? 1 : x < -1 ? -1 : x);
    }
    free(v);
    return 1.0f / s;
}

/* The trits are equal.  The scale is too in half of the matrices; who wrote the GGUF added the mean up in
 * single precision, which moves it by a unit in the last place or two in the others. */
static void compare_matrix(const struct tern_tensor *hf, const struct tern_tensor *gguf)
{
    size_t n = (size_t)(hf->ne[0] * hf->ne[1]);
    int8_t *made = malloc(n), *wanted = malloc(n);
    const struct tern_trits from = {
        .type = gguf->type, .src = gguf->data, .m = (size_t)gguf->ne[1], .k = (size_t)gguf->ne[0]
    };
    float scale = quantize(hf, made), stored = 0;

    assert_true(made && wanted && hf->view.absmean);
    assert_int_equal(tern_pack_rows(&from, 0, from.m, wanted, &stored), TERN_PACK_OK);
    assert_memory_equal(made, wanted, n);
    assert_true(nextafterf(nextafterf(scale, stored), stored) == stored);
    free(made);
    free(wanted);
}

static void compare_floats(const struct tern_tensor *hf, const struct tern_tensor *gguf)
{
    size_t n = (size_t)(hf->ne[0] * hf->ne[1]);
    float *a = malloc(n * sizeof *a), *b = malloc(n * sizeof *b);

    assert_true(a && b);
    tern_dequant_row((enum tern_dtype)hf->type, hf->data, n, a);
    tern_dequant_row((enum tern_dtype)gguf->type, gguf->data, n, b);
    for (size_t i = 0; i < n; i++)
        assert_true(fabsf(a[i] - b[i]) <= 1e-3f * fabsf(a[i]) + 1e-6f); /* f16 there */
    free(a);
    free(b);
}

static char path[4096];

static void test_fable(void **state)
{
    struct tern_gguf *hf = NULL, *gguf = NULL;
    struct tern_arch a, b;
    uint8_t ha[TERN_HASH_BYTES], hb[TERN_HASH_BYTES];

    (void)state;
    assert_ok(tern_model_file_open(path, NULL, &hf, &unit_err));
    assert_ok(tern_model_file_open(TERN_SOURCE_DIR "/deploy/models/fable.gguf", NULL, &gguf, &unit_err));
    assert_ok(tern_arch_read(hf, &a, &unit_err));
    assert_ok(tern_arch_read(gguf, &b, &unit_err));
    tern_arch_hash(&a, ha);
    tern_arch_hash(&b, hb);
    assert_memory_equal(ha, hb, sizeof ha);
    assert_int_equal(a.n_vocab, b.n_vocab);
    assert_int_equal(a.n_ctx_train, b.n_ctx_train);
    assert_int_equal(hf->n_tensors, gguf->n_tensors);
    for (size_t i = 0; i < hf->n_tensors; i++) {
        const struct tern_tensor *t = &hf->tensors[i], *u;
        char name[TERN_MAX_TENSOR_NAME + 1];

        snprintf(name, sizeof name, "%.*s", (int)t->name.len, t->name.ptr);
        u = tern_gguf_tensor(gguf, name);
        if (!u || memcmp(t->ne, u->ne, sizeof t->ne) != 0)
            fail_msg("'%s' is not the same in the GGUF", name);
        if (u->type == TERN_TYPE_I2_S)
            compare_matrix(t, u);
        else
            compare_floats(t, u);
    }
    tern_gguf_close(&hf);
    tern_gguf_close(&gguf);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_fable),
    };
    const char *shared = getenv("TERN_SHARED");

    snprintf(path, sizeof path, "%s/models/fable/hf",
             shared && *shared ? shared : TERN_SOURCE_DIR "/../shared");
    if (access(path, F_OK) != 0) {
        printf("skipped: %s is not there (TERN_SHARED names another folder of shared data)\n", path);
        return UNIT_SKIPPED;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
