/* SPDX-License-Identifier: Apache-2.0 */
/*
 * make_model: writes GGUF models for tests.  See usage() below, and lab.h for what each kind is.
 */
#include "engine/gguf_write.h"
#include "engine/quant_row.h"
#include "lab/lab.h"

#include <errno.h>
#include <getopt.h>
#include <stdlib.h>
#include <string.h>

static const char usage[] =
    "make_model [shape options] OUT             a synthetic model, bitnet-b1.58 unless --arch says another\n"
    "make_model --slice A-B IN OUT              the metadata and layers A to B, inclusive\n"
    "make_model --retype TYPE IN OUT            the same model, ternary matrices in TYPE\n"
    "make_model --embd-type TYPE IN OUT         ... embedding and head in TYPE (with or without --retype)\n"
    "make_model --outliers SEED IN OUT          a copy with outlier channels (--channels N, --factor F)\n"
    "\n"
    "shape: --layers 2 --embd 128 --ffn 256 --heads 4 --kv-heads 2 --head-dim 32 --vocab 320 --ctx 512\n"
    "       --theta 10000 --eps 1e-5 --seed 1 --untied --no-tokenizer --arch NAME\n"
    "       --varied-norms --no-input-norms --rope-freqs --scales   (engine/synthetic.h)\n"
    "       --tokenizer FILE.gguf   copy its tokenizer (and take its vocabulary's size)\n"
    "types: --type i2_s|tq1_0|tq2_0  --retype those, tl1 (tiles 32,64,32), tl2 (32,96,32), f32, f16, bf16\n"
    "       --layout A|B|C  --embd-type f32|f16|bf16|q8_0|q6_k|q4_0|q4_k|tq2_0  "
    "--norm-type f32|f16|bf16\n";

struct args {
    struct tern_synthetic shape;
    struct lab_retype retype;
    struct lab_outliers outliers;
    const char *tokenizer, *slice;
    bool has_retype, has_outliers, has_vocab;
};

enum opt {
    OPT_LAYERS = 256,
    OPT_EMBD,
    OPT_FFN,
    OPT_HEADS,
    OPT_KV_HEADS,
    OPT_HEAD_DIM,
    OPT_VOCAB,
    OPT_CTX,
    OPT_THETA,
    OPT_EPS,
    OPT_SEED,
    OPT_UNTIED,
    OPT_NO_TOKENIZER,
    OPT_ARCH,
    OPT_VARIED_NORMS,
    OPT_NO_INPUT_NORMS,
    OPT_ROPE_FREQS,
    OPT_SCALES,
    OPT_TOKENIZER,
    OPT_TYPE,
    OPT_LAYOUT,
    OPT_EMBD_TYPE,
    OPT_NORM_TYPE,
    OPT_SLICE,
    OPT_RETYPE,
    OPT_OUTLIERS,
    OPT_CHANNELS,
    OPT_FACTOR,
    OPT_HELP
};

static const struct option options[] = {
    { "layers", 1, NULL, OPT_LAYERS },
    { "embd", 1, NULL, OPT_EMBD },
    { "ffn", 1, NULL, OPT_FFN },
    { "heads", 1, NULL, OPT_HEADS },
    { "kv-heads", 1, NULL, OPT_KV_HEADS },
    { "head-dim", 1, NULL, OPT_HEAD_DIM },
    { "vocab", 1, NULL, OPT_VOCAB },
    { "ctx", 1, NULL, OPT_CTX },
    { "theta", 1, NULL, OPT_THETA },
    { "eps", 1, NULL, OPT_EPS },
    { "seed", 1, NULL, OPT_SEED },
    { "untied", 0, NULL, OPT_UNTIED },
    { "no-tokenizer", 0, NULL, OPT_NO_TOKENIZER },
    { "arch", 1, NULL, OPT_ARCH },
    { "varied-norms", 0, NULL, OPT_VARIED_NORMS },
    { "no-input-norms", 0, NULL, OPT_NO_INPUT_NORMS },
    { "rope-freqs", 0, NULL, OPT_ROPE_FREQS },
    { "scales", 0, NULL, OPT_SCALES },
    { "tokenizer", 1, NULL, OPT_TOKENIZER },
    { "type", 1, NULL, OPT_TYPE },
    { "layout", 1, NULL, OPT_LAYOUT },
    { "embd-type", 1, NULL, OPT_EMBD_TYPE },
    { "norm-type", 1, NULL, OPT_NORM_TYPE },
    { "slice", 1, NULL, OPT_SLICE },
    { "retype", 1, NULL, OPT_RETYPE },
    { "outliers", 1, NULL, OPT_OUTLIERS },
    { "channels", 1, NULL, OPT_CHANNELS },
    { "factor", 1, NULL, OPT_FACTOR },
    { "help", 0, NULL, OPT_HELP },
    { NULL, 0, NULL, 0 },
};

static uint64_t number(const char *text)
{
    char *end;
    unsigned long long v;

    errno = 0;
    v = strtoull(text, &end, 0);
    if (end == text || *end || errno)
        lab_die("'%s' is not a whole number", text);
    return v;
}

static double real(const char *text)
{
    char *end;
    double v = strtod(text, &end);

    if (end == text || *end)
        lab_die("'%s' is not a number", text);
    return v;
}

static uint32_t type_id(const char *text)
{
    uint32_t type;

    if (!tern_quant_type_by_name(text, &type))
        lab_die("'%s' is not a tensor type", text);
    return type;
}

static enum tern_i2s_layout layout_id(const char *text)
{
    if (text[0] < 'A' || text[0] > 'C' || text[1])
        lab_die("a layout is A, B or C, not '%s'", text);
    return (enum tern_i2s_layout)(text[0] - 'A');
}

static void take_option(struct args *a, int opt, const char *v)
{
    struct tern_synthetic *s = &a->shape;

    switch (opt) {
    case OPT_LAYERS: s->n_layers = (uint32_t)number(v); break;
    case OPT_EMBD: s->n_embd = (uint32_t)number(v); break;
    case OPT_FFN: s->n_ffn = (uint32_t)number(v); break;
    case OPT_HEADS: s->n_heads = (uint32_t)number(v); break;
    case OPT_KV_HEADS: s->n_kv_heads = (uint32_t)number(v); break;
    case OPT_HEAD_DIM: s->head_dim = (uint32_t)number(v); break;
    case OPT_VOCAB:
        s->n_vocab = (uint32_t)number(v);
        a->has_vocab = true;
        break;
    case OPT_CTX: s->n_ctx = (uint32_t)number(v); break;
    case OPT_THETA: s->rope_theta = real(v); break;
    case OPT_EPS: s->rms_eps = real(v); break;
    case OPT_SEED: s->seed = number(v); break;
    case OPT_UNTIED: s->untied = true; break;
    case OPT_NO_TOKENIZER: s->no_tokenizer = true; break;
    case OPT_ARCH: s->arch = v; break;
    case OPT_VARIED_NORMS: s->varied_norms = true; break;
    case OPT_NO_INPUT_NORMS: s->no_input_norms = true; break;
    case OPT_ROPE_FREQS: s->rope_freqs = true; break;
    case OPT_SCALES: s->scales = true; break;
    case OPT_TOKENIZER: a->tokenizer = v; break;
    case OPT_TYPE: s->ternary = type_id(v); break;
    case OPT_LAYOUT: s->layout = a->retype.layout = layout_id(v); break;
    case OPT_EMBD_TYPE: s->embd = a->retype.embd = type_id(v); break;
    case OPT_NORM_TYPE: s->norm = type_id(v); break;
    case OPT_SLICE: a->slice = v; break;
    case OPT_RETYPE:
        a->retype.ternary = type_id(v);
        a->has_retype = true;
        break;
    case OPT_OUTLIERS:
        a->outliers.seed = number(v);
        a->has_outliers = true;
        break;
    case OPT_CHANNELS: a->outliers.n = (uint32_t)number(v); break;
    case OPT_FACTOR: a->outliers.factor = real(v); break;
    case OPT_HELP: fputs(usage, stdout); exit(0);
    default: fputs(usage, stderr); exit(64);
    }
}

static struct tern_gguf *open_model(const char *path)
{
    struct tern_gguf *g;
    struct tern_err err;

    if (tern_gguf_open(path, &g, &err))
        lab_die("%s", err.text);
    return g;
}

static void make_synthetic(struct args *a, FILE *f)
{
    struct tern_gguf *tokenizer = a->tokenizer ? open_model(a->tokenizer) : NULL;

    if (tokenizer) {
        const struct tern_gguf_kv *tokens = tern_gguf_find(tokenizer, "tokenizer.ggml.tokens");

        if (!tokens)
            lab_die("%s has no tokenizer", a->tokenizer);
        a->shape.tokenizer = tokenizer;
        if (!a->has_vocab)
            a->shape.n_vocab = (uint32_t)tokens->n;
    }
    lab_write_synthetic(&a->shape, f);
    tern_gguf_close(&tokenizer);
}

static void make_copy(struct args *a, const char *in, FILE *f)
{
    struct tern_gguf *g = open_model(in);
    unsigned first, last;
    char junk;

    if (a->has_outliers)
        lab_write_outliers(g, &a->outliers, f);
    else if (!a->slice)
        lab_write_retyped(g, &a->retype, f);
    else if (sscanf(a->slice, "%u-%u%c", &first, &last, &junk) == 2 && first <= last)
        lab_write_slice(g, first, last, f);
    else
        lab_die("--slice takes two layers such as 0-3, not '%s'", a->slice);
    tern_gguf_close(&g);
}

int main(int argc, char **argv)
{
    struct args a = { .shape = lab_shape_small(),
                      .retype = { UINT32_MAX, TERN_I2S_A, UINT32_MAX },
                      .outliers = { 0, 4, 64.0 } };
    const char *out;
    FILE *f;
    int opt, n;

    while ((opt = getopt_long(argc, argv, "", options, NULL)) != -1)
        take_option(&a, opt, optarg);
    n = argc - optind;
    if (n != 1 && n != 2) {
        fputs(usage, stderr);
        return 64;
    }
    out = argv[argc - 1];
    f = fopen(out, "wb");
    if (!f)
        lab_die("cannot write %s: %s", out, strerror(errno));
    if (n == 1)
        make_synthetic(&a, f);
    else
        make_copy(&a, argv[optind], f);
    if (fclose(f) != 0)
        lab_die("cannot write %s: %s", out, strerror(errno));
    return 0;
}
