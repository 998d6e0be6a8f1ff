/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A safetensors file, and the tensors a model of each family makes of it.
 *
 * Properties: arrays lie inside the bytes, behind the header, and none overlaps another; sizes agree
 * with dtypes and shapes; tensors lie where their arrays do, have names, and scales are positive numbers;
 * every refusal has a sentence.
 */
#include "fuzz/fuzz.h"

#include "engine/base/limits.h"
#include "engine/hf_tensors.h"
#include "kernels/pack.h"

#include <math.h>
#include <string.h>

static void refused(enum tern_status st, const struct tern_err *err)
{
    FUZZ_CHECK(st >= TERN_ERR_USAGE && err->status == st && err->text[0] && !strchr(err->text, '\n'));
}

static void check_arrays(const struct tern_safetensors *s, const uint8_t *bytes, size_t size)
{
    for (size_t i = 0; i < s->n; i++) {
        const struct tern_hf_array *a = &s->arrays[i], *last = i ? a - 1 : NULL;
        size_t n = a->elem_bytes;

        FUZZ_CHECK(a->data > bytes + 8 && a->bytes <= size && a->data + a->bytes <= bytes + size);
        FUZZ_CHECK(a->n_dims <= 4);
        FUZZ_CHECK(a->name[0] && strlen(a->name) <= TERN_MAX_TENSOR_NAME && a->dtype[0]);
        FUZZ_CHECK(!last || last->data + last->bytes <= a->data);
        for (uint32_t d = 0; d < 4; d++) {
            FUZZ_CHECK(a->shape[d] > 0 && (d < a->n_dims || a->shape[d] == 1));
            n *= (size_t)a->shape[d];
        }
        FUZZ_CHECK(n == a->bytes);
    }
}

static void check_tensors(const struct tern_hf_tensors *t, const uint8_t *bytes, size_t size)
{
    size_t names = 0;

    for (size_t i = 0; i < t->n; i++) {
        const struct tern_tensor *x = &t->tensors[i];
        size_t n = 0;

        FUZZ_CHECK(x->name.len > 0 && x->name.len <= TERN_MAX_TENSOR_NAME);
        FUZZ_CHECK(!memchr(t->names + names, 0, x->name.len));
        names += x->name.len;
        FUZZ_CHECK(x->data > bytes && x->data + x->bytes <= bytes + size);
        if (x->type == TERN_TYPE_HF_PACKED) {
            FUZZ_CHECK(x->bytes == x->ne[0] * ((x->ne[1] + 3) / 4));
            FUZZ_CHECK(isfinite(x->view.scale) && x->view.scale > 0);
        } else {
            FUZZ_CHECK(tern_gguf_tensor_bytes(x->type, x->ne, &n) && n == x->bytes);
        }
        FUZZ_CHECK(x->view.n_heads == 0 || (x->ne[1] % x->view.n_heads == 0 && x->n_dims == 2));
        FUZZ_CHECK(!x->view.absmean || (x->n_dims == 2 && x->type != TERN_TYPE_HF_PACKED));
    }
    FUZZ_CHECK(names == t->names_bytes);
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct tern_hf_array *)a)->name, ((const struct tern_hf_array *)b)->name);
}

/* Heads of 6, 2 of keys to 4; a hidden size of 24, 26 in the FFN; one thing after another differs. */
static void make_tensors(const struct tern_safetensors *s, unsigned variant, const uint8_t *bytes,
                         size_t size)
{
    const struct tern_hf_config c = {
        .family = (enum tern_hf_family)(variant % 4),
        .has_head = true,
        .may_be_tied = variant & 1,
        .must_be_tied = (variant & 3) == 3,
        .is_master = variant & 2,
        .multiplies = variant & 4,
        .n_layers = 2,
        .n_embd = 24,
        .n_ffn = 26,
        .n_heads = 4,
        .n_kv_heads = 2,
        .head_dim = 6,
    };
    struct tern_hf_shards shards = { .arrays = s->arrays, .n = s->n };
    struct tern_hf_tensors t;
    struct tern_err err;
    enum tern_status st = tern_hf_tensors_make("fuzz", &c, &shards, &t, &err);

    if (st) {
        refused(st, &err);
        return;
    }
    check_tensors(&t, bytes, size);
    tern_hf_tensors_free(&t);
}

static void run(const uint8_t *bytes, size_t size)
{
    struct tern_safetensors s;
    struct tern_err err;
    enum tern_status st = tern_safetensors_parse("fuzz.safetensors", bytes, size, &s, &err);

    if (st) {
        refused(st, &err);
        return;
    }
    check_arrays(&s, bytes, size);
    qsort(s.arrays, s.n, sizeof *s.arrays, by_name);
    for (size_t i = 1; i < s.n; i++)
        FUZZ_CHECK(strcmp(s.arrays[i - 1].name, s.arrays[i].name) != 0);
    for (unsigned variant = 0; variant < 8; variant++)
        make_tensors(&s, variant, bytes, size);
    tern_safetensors_free(&s);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    /* A heap block of the exact size, and aligned as a mapping is. */
    uint8_t *bytes = malloc(size);

    FUZZ_CHECK(bytes || size == 0);
    if (size)
        memcpy(bytes, data, size);
    run(bytes, size);
    free(bytes);
    return 0;
}
