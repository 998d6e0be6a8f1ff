/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `tern inspect`: what is in a model file, and what running it will take.
 */
#include "coordinator/commands.h"
#include "coordinator/engine_options.h"
#include "coordinator/inspect.h"
#include "coordinator/option_habits.h"
#include "coordinator/progress.h"
#include "engine/identity.h"
#include "engine/option.h"
#include "engine/pretokenizer.h"

#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sysexits.h>

#define DEFAULT_CTX 2048 /* as `tern run`: the trained context, but at most this */

enum { OPT_JSON = 256, OPT_LAYERS, OPT_LAYOUT, OPT_KV, OPT_TENSORS, OPT_HASH, OPT_VERIFY, OPT_PRE };

static const struct option longs[] = {
    { "model", required_argument, NULL, 'm' },
    { "json", no_argument, NULL, OPT_JSON },
    { "layers", required_argument, NULL, OPT_LAYERS },
    { "ctx-size", required_argument, NULL, 'c' },
    { "threads", required_argument, NULL, 't' },
    { "layout", required_argument, NULL, OPT_LAYOUT },
    { "kv", required_argument, NULL, OPT_KV },
    { "tensors", no_argument, NULL, OPT_TENSORS },
    { "hash", no_argument, NULL, OPT_HASH },
    { "verify", no_argument, NULL, OPT_VERIFY },
    { "pre", required_argument, NULL, OPT_PRE },
    TERN_FILE_LONG_OPTIONS,
    { "help", no_argument, NULL, 'h' },
    { NULL, 0, NULL, 0 },
};

static const char help[] =
    "tern inspect: what is in a model file, and the memory it will take.\n"
    "\n"
    "usage: tern inspect [-m FILE] [options]\n"
    "\n" TERN_FILE_HELP_MODEL
    "      --layers A-B          predict the memory of a worker of these layers (default: all there are)\n"
    "  -c, --ctx-size N          ... for a context of N positions (default: as trained, at most 2048)\n"
    "  -t, --threads N           ... and N compute threads (default: 1)\n"
    "      --layout LAYOUT       ... and ternary weights in 2bit or 1.6bit (default: auto, what is best\n"
    "                            on this machine)\n"
    "      --kv f16|int8         ... and a KV cache of these (default: f16)\n"
    "      --tensors             list every tensor\n"
    "      --hash                compute the model's hash: by it coordinator and workers know a model\n"
    "      --verify              read all of it: shares of -1, 0 and +1, scales, numbers, hashes, which\n"
    "                            layout I2_S has, the tokenizer; fails when something is broken\n"
    "      --json                one object\n";
static const char help_end[] = "  -h, --help                this text\n";

struct options {
    char model[4096];
    const char *layers, *pre;
    uint32_t ctx, threads;
    enum tern_layout_wish layout;
    enum tern_kv_type kv;
    bool json, tensors, hash, verify;
    struct tern_file_options file;
};

static enum tern_status parse_one(struct options *o, int c, const char *arg, struct tern_err *err)
{
    switch (c) {
    case 'm':
        if (!*arg || snprintf(o->model, sizeof o->model, "%s", arg) >= (int)sizeof o->model)
            return TERN_FAIL(err, TERN_ERR_USAGE, "-m: the path is %s", *arg ? "too long" : "empty");
        return TERN_OK;
    case 'c': return tern_option_u32("-c", arg, 1, TERN_MAX_CONTEXT, &o->ctx, err);
    case 't': return tern_option_u32("-t", arg, 1, TERN_MAX_THREADS, &o->threads, err);
    case OPT_JSON: o->json = true; return TERN_OK;
    case OPT_LAYOUT: return tern_option_layout(arg, &o->layout, err);
    case OPT_KV: return tern_option_kv(arg, &o->kv, err);
    case OPT_LAYERS: o->layers = arg; return TERN_OK;
    case OPT_TENSORS: o->tensors = true; return TERN_OK;
    case OPT_HASH: o->hash = true; return TERN_OK;
    case OPT_VERIFY: o->verify = true; return TERN_OK;
    case OPT_PRE: o->pre = arg; return TERN_OK;
    default: return tern_file_option(&o->file, c, arg, err);
    }
}

/* TERN_END: --help was printed. */
static enum tern_status parse(int argc, char **argv, struct options *o, struct tern_err *err)
{
    enum tern_status st;
    int c;

    memset(o, 0, sizeof *o);
    o->threads = 1;
    o->kv = TERN_KV_DEFAULT;
    optind = 1;
    while ((c = option_next(argc, argv, ":m:c:t:h", longs, NULL, err)) != -1) {
        if (c == 'h') {
            fputs(help, stdout);
            tern_pretok_help(stdout);
            fputs(tern_file_option_help, stdout);
            fputs(help_end, stdout);
            return TERN_END;
        }
        if (c == '?')
            return TERN_ERR_USAGE;
        st = parse_one(o, c, optarg, err);
        if (st)
            return st;
    }
    if (optind < argc)
        return TERN_FAIL(err, TERN_ERR_USAGE, "'%s' is not an option; a model goes behind -m", argv[optind]);
    return o->model[0] ? TERN_OK : tern_option_default_model("-m", o->model, sizeof o->model, err);
}

/* The layers a file holds: all, or those of a slice. */
static void layers_in_file(const struct tern_gguf *g, uint32_t *first, uint32_t *last)
{
    int lo = -1, hi = -1;

    for (size_t i = 0; i < g->n_tensors; i++) {
        int layer = tern_tensor_layer(g->tensors[i].name);

        if (layer < 0)
            continue;
        lo = lo < 0 || layer < lo ? layer : lo;
        hi = layer > hi ? layer : hi;
    }
    *first = lo < 0 ? 0 : (uint32_t)lo;
    *last = lo < 0 ? 0 : (uint32_t)hi + 1;
}

static enum tern_status predict(struct inspect *in, uint32_t first, uint32_t last, bool with_embd,
                                struct inspect_memory *out, struct tern_err *err)
{
    const struct tern_arch *a = &in->arch;
    size_t pages = (in->ctx + TERN_PAGE - 1) / TERN_PAGE;

    for (int l = 0; l < TERN_N_TILE_LAYOUTS; l++) {
        struct tern_model_need need;
        enum tern_status st = tern_model_need(in->g, a, first, last, with_embd, (enum tern_tile_layout)l,
                                              in->rows, in->threads, &need, err);

        if (st)
            return st;
        out->tiles_bytes[l] = need.tiles_bytes;
        if (l == (int)in->layout)
            out->need = need;
    }
    for (int t = 0; t < TERN_N_KV_TYPES; t++)
        out->kv_bytes[t] = pages * out->need.kv_page_bytes[t];
    /* The type of the file's head decides for --head auto alone. */
    out->statistical_bytes =
        !with_embd ? 0 : tern_head_copy_bytes(TERN_HEAD_STATISTICAL, TERN_F16, a->n_vocab, a->n_embd);
    out->rows_bytes = with_embd ? ((size_t)in->rows * a->n_embd + a->n_vocab) * sizeof(float) : 0;
    out->total_bytes = out->need.tiles_bytes + out->need.norms_bytes + out->need.embd_bytes +
                       out->need.head_bytes + out->kv_bytes[in->kv] + out->need.scratch_bytes +
                       out->rows_bytes + out->need.fixed_bytes;
    return TERN_OK;
}

static enum tern_status choose_layout(struct inspect *in, const struct options *o, struct tern_err *err)
{
    struct tern_layout_choice choice;
    struct tern_kernels kern;
    struct tern_pool *pool;
    enum tern_status st = tern_pool_new(o->threads, &pool, err);

    if (st)
        return st;
    tern_kernels_init(&kern, tern_cpu_detect());
    tern_layout_choose(o->layout, &kern, pool, &choice);
    in->layout = choice.layout;
    tern_pool_free(&pool);
    return TERN_OK;
}

/* Memory of the worker asked for, and of a coordinator when the file can serve one. */
static enum tern_status predict_all(struct inspect *in, const struct options *o, struct tern_err *err)
{
    enum tern_status st = choose_layout(in, o, err);

    if (st)
        return st;
    in->threads = o->threads;
    in->kv = o->kv;
    in->ctx = o->ctx ? o->ctx : in->arch.n_ctx_train > DEFAULT_CTX ? DEFAULT_CTX : in->arch.n_ctx_train;
    layers_in_file(in->g, &in->first, &in->last);
    in->rows = CHUNK_MOST + 1; /* as `tern run`: a chunk of a prompt, and one token of a sequence */
    if (o->layers &&
        (st = tern_option_layers(o->layers, "the model", in->arch.n_layers, &in->first, &in->last, err)))
        return st;
    if (in->last > in->first) {
        in->memory_status = predict(in, in->first, in->last, false, &in->worker, &in->memory_err);
        in->has_worker = !in->memory_status;
    }
    if (!in->memory_status && tern_gguf_tensor(in->g, "token_embd.weight")) {
        in->memory_status = predict(in, 0, 0, true, &in->coordinator, &in->memory_err);
        in->has_coordinator = !in->memory_status;
    }
    return TERN_OK;
}

static enum tern_status hash(struct inspect *in, unsigned threads, struct tern_err *err)
{
    struct progress progress;
    struct tern_pool *pool;
    struct tern_identity *id = NULL;
    enum tern_status st = tern_pool_new(threads, &pool, err);

    if (st)
        return st;
    progress_begin(&progress, "hashing the model", tern_gguf_file_bytes(in->g) < (64 << 20));
    st = tern_identity_compute(in->g, &in->arch, TERN_IDENTITY_ALL, pool, progress_update, &progress, &id,
                               err);
    progress_end(&progress);
    tern_pool_free(&pool);
    if (st)
        return st;
    memcpy(in->hash, id->model_hash, sizeof in->hash);
    in->has_hash = true;
    tern_identity_free(&id);
    return TERN_OK;
}

static enum tern_status verify(struct inspect *in, unsigned threads, struct tern_err *err)
{
    struct progress progress;
    struct tern_pool *pool;
    enum tern_status st = tern_pool_new(threads, &pool, err);

    if (st)
        return st;
    progress_begin(&progress, "reading the model", tern_gguf_file_bytes(in->g) < (64 << 20));
    st =
        tern_verify_file(in->g, &in->arch, in->tokenizer, pool, progress_update, &progress, &in->verify, err);
    progress_end(&progress);
    tern_pool_free(&pool);
    return st;
}

/* Fills `in` with all that can be known.  Fails only when the user asked for what cannot be had. */
static enum tern_status gather(struct inspect *in, const struct options *o, struct tern_err *err)
{
    enum tern_status st = TERN_OK;

    in->arch_status = tern_arch_read(in->g, &in->arch, &in->arch_err);
    in->has_tokenizer = tern_gguf_find(in->g, "tokenizer.ggml.tokens") != NULL;
    if (in->has_tokenizer)
        in->tokenizer_status = tern_tokenizer_new(in->g, o->pre, &in->tokenizer, &in->tokenizer_err);
    if (!in->arch_status)
        st = predict_all(in, o, err);
    if (!st && o->hash && !in->arch_status)
        st = hash(in, o->threads, err);
    if (!st && o->verify && !in->arch_status)
        st = verify(in, o->threads, err);
    return st;
}

/* The first part that failed decides the exit code, after everything else was printed. */
static enum tern_status verdict(const struct inspect *in, struct tern_err *err)
{
    if (in->arch_status)
        *err = in->arch_err;
    else if (in->tokenizer_status)
        *err = in->tokenizer_err;
    else if (in->memory_status)
        *err = in->memory_err;
    else if (in->verify && in->verify->n_broken)
        (void)TERN_FAIL(err, TERN_ERR_FORMAT, "%zu thing%s in %s %s broken", in->verify->n_broken,
                        in->verify->n_broken == 1 ? "" : "s", in->path,
                        in->verify->n_broken == 1 ? "is" : "are");
    else
        return TERN_OK;
    return err->status;
}

int cmd_inspect(int argc, char **argv)
{
    struct options o;
    struct inspect in;
    struct tern_gguf *g = NULL;
    struct tern_err err;
    enum tern_status st = parse(argc, argv, &o, &err);

    if (st)
        return st == TERN_END ? EX_OK : cmd_fail("inspect", &err);
    signal(SIGPIPE, SIG_IGN);
    memset(&in, 0, sizeof in);
    st = tern_model_file_open(o.model, &o.file, &g, &err);
    if (!st) {
        in.path = o.model;
        in.g = g;
        in.list_tensors = o.tensors;
        st = gather(&in, &o, &err);
    }
    if (!st && o.json)
        st = inspect_print_json(&in, &err);
    else if (!st)
        inspect_print_text(&in);
    if (!st)
        st = cmd_flush(&err);
    if (!st)
        st = verdict(&in, &err);
    if (!st)
        st = tern_gguf_check(g, &err);
    tern_verify_free(&in.verify);
    tern_tokenizer_free(&in.tokenizer);
    tern_gguf_close(&g);
    return st ? cmd_fail("inspect", &err) : EX_OK;
}
