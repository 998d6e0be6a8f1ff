/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `tern perplexity`: how well a model predicts a text.
 */
#include "coordinator/commands.h"
#include "coordinator/interrupt.h"
#include "coordinator/json_out.h"
#include "coordinator/option_habits.h"
#include "coordinator/perplexity.h"
#include "engine/base/log.h"
#include "engine/option.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>
#include <unistd.h>

#define DEFAULT_CTX    512
#define MAX_TEXT_BYTES ((size_t)1 << 30)
#define CHUNKS_AT_ONCE 4 /* fills the stages of a pipeline; in one process it changes nothing */

enum { OPT_CHUNKS = ENGINE_OPT_LAST, OPT_NLL };

static const struct option longs[] = {
    ENGINE_LONG_OPTIONS,
    { "file", required_argument, NULL, 'f' },
    { "chunks", required_argument, NULL, OPT_CHUNKS },
    { "nll", no_argument, NULL, OPT_NLL },
    { "help", no_argument, NULL, 'h' },
    { NULL, 0, NULL, 0 },
};

static const char help[] =
    "tern perplexity: measures how well a model predicts a text.\n"
    "\n"
    "usage: tern perplexity -f FILE [-m FILE] [options]\n"
    "\n"
    "The text is cut into chunks of -c tokens (default: 512); of each the second half is scored,\n"
    "for which every logit is needed: the head is always read in full.\n"
    "Running values go to stderr, \"Final estimate: PPL = X +/- Y\" to stdout.\n"
    "\n"
    "  -f, --file FILE           the text (- is stdin)\n"
    "      --chunks N            only the first N chunks\n"
    "      --nll                 the negative log-likelihood of every scored token, too; with --json also\n"
    "                            the token the model thought most likely there\n"
    "\n";

static const char help_output[] =
    "      --json                one JSON object on stdout, with a value for every chunk\n"
    "  -h, --help                this text\n";

struct options {
    struct engine_options engine;
    const char *file;
    uint32_t chunks; /* 0: all */
    bool nll;
};

static enum tern_status parse_one(struct options *o, int c, const char *arg, struct tern_err *err)
{
    enum tern_status st = engine_option(&o->engine, c, arg, err);

    if (st != TERN_END)
        return st;
    switch (c) {
    case 'f': o->file = arg; return TERN_OK;
    case OPT_CHUNKS: return tern_option_u32("--chunks", arg, 1, UINT32_MAX, &o->chunks, err);
    default: o->nll = true; return TERN_OK;
    }
}

/* TERN_END: --help was printed. */
static enum tern_status parse(int argc, char **argv, struct options *o, struct tern_err *err)
{
    enum tern_status st;
    int c;

    memset(o, 0, sizeof *o);
    engine_options_default(&o->engine);
    optind = 1;
    while ((c = option_next(argc, argv, ":" ENGINE_SHORT_OPTIONS "f:h", longs, NULL, err)) != -1) {
        if (c == 'h') {
            fputs(help, stdout);
            engine_options_print_help(true);
            fputs(help_output, stdout);
            return TERN_END;
        }
        if (c == '?')
            return TERN_ERR_USAGE;
        if ((st = parse_one(o, c, optarg, err)))
            return st;
    }
    if (optind < argc)
        return TERN_FAIL(err, TERN_ERR_USAGE, "'%s' is not an option; the text's file goes behind -f",
                         argv[optind]);
    if (!o->file)
        return TERN_FAIL(err, TERN_ERR_USAGE, "which text? name a file with -f FILE, or - for stdin");
    if (o->engine.head == TERN_HEAD_SCREENED || o->engine.head == TERN_HEAD_STATISTICAL)
        return TERN_FAIL(err, TERN_ERR_USAGE, "--head %s: a perplexity needs every logit; leave --head out",
                         tern_head_mode_name(o->engine.head));
    o->engine.head = TERN_HEAD_FULL;
    if (o->engine.ctx && o->engine.ctx < 4)
        return TERN_FAIL(err, TERN_ERR_USAGE, "-c: a chunk has at least 4 tokens");
    if (!o->engine.ctx && !o->engine.ctx_trained)
        o->engine.ctx = DEFAULT_CTX;
    return engine_options_finish(&o->engine, err);
}

/* -- output ---------------------------------------------------------------------------------------------- */

static void on_chunk(void *arg, const struct perplexity *p)
{
    const struct options *o = arg;
    double ppl, error;

    if (o->engine.quiet)
        return;
    perplexity_estimate(p, p->n_done, &ppl, &error);
    fprintf(stderr, "[%u]%.4f,%s", (unsigned)p->n_done, ppl,
            p->n_done % 8 == 0 || p->n_done == p->n_chunks ? "\n" : " ");
}

static json_t *chunk_json(const struct perplexity *p, uint32_t i, bool nll)
{
    const struct perplexity_chunk *c = &p->chunks[i];
    double ppl, error;
    json_t *o, *nlls, *tops;

    perplexity_estimate(p, i + 1, &ppl, &error);
    o = json_pack("{s:i, s:i, s:o, s:o}", "chunk", (int)i + 1, "predictions", (int)p->per_chunk, "mean_nll",
                  json_out_number(c->sum / p->per_chunk), "running_ppl", json_out_number(ppl));
    if (!nll)
        return o;
    nlls = json_array();
    tops = json_array();
    for (uint32_t k = 0; k < p->per_chunk; k++) {
        json_array_append_new(nlls, json_out_number(p->nll[(size_t)i * p->per_chunk + k]));
        json_array_append_new(tops, json_integer(p->tops[(size_t)i * p->per_chunk + k]));
    }
    json_object_set_new(o, "nll", nlls);
    json_object_set_new(o, "top", tops);
    return o;
}

static enum tern_status print_json(const struct perplexity *p, const struct options *o, size_t n_tokens,
                                   double ms, struct tern_err *err)
{
    double ppl, error;
    json_t *root, *chunks = json_array();

    for (uint32_t i = 0; i < p->n_chunks; i++)
        json_array_append_new(chunks, chunk_json(p, i, o->nll));
    perplexity_estimate(p, p->n_chunks, &ppl, &error);
    root = json_pack("{s:o, s:o, s:i, s:i, s:I, s:s, s:s, s:s, s:f, s:o}", "ppl", json_out_number(ppl),
                     "error", json_out_number(error), "n_ctx", (int)p->n_ctx, "n_chunks", (int)p->n_chunks,
                     "n_tokens", (json_int_t)n_tokens, "wire", tern_boundary_name(o->engine.wire), "kv",
                     tern_kv_type_name(o->engine.kv), "cpu", tern_cpu_name(p->s->kern.level), "elapsed_ms",
                     ms, "chunks", chunks);
    return json_out_print(&root, 12, err);
}

static enum tern_status print_text(const struct perplexity *p, const struct options *o, struct tern_err *err)
{
    double ppl, error;

    for (uint32_t i = 0; o->nll && i < p->n_chunks; i++)
        for (uint32_t k = 0; k < p->per_chunk; k++) {
            size_t at = (size_t)i * p->per_chunk + k;

            printf("nll chunk %u position %u token %d %.6f\n", (unsigned)i + 1,
                   (unsigned)(p->n_ctx / 2 + 1 + k), (int)p->targets[at], p->nll[at]);
        }
    perplexity_estimate(p, p->n_chunks, &ppl, &error);
    printf("Final estimate: PPL = %.4f +/- %.5f\n", ppl, error);
    return cmd_flush(err);
}

/* -- the command ----------------------------------------------------------------------------------------- */

static enum tern_status score(struct options *o, const struct tern_ids *ids, struct session *s,
                              struct tern_err *err)
{
    struct perplexity *p = NULL;
    const uint64_t t0 = tern_now_ns();
    double ms;
    enum tern_status st = perplexity_new(s, ids->ids, ids->n, s->ctx, o->chunks, &p, err);

    if (!st)
        st = session_connect(
            s,
            &(struct session_room){ .n_at_once = p->n_chunks < CHUNKS_AT_ONCE ? p->n_chunks : CHUNKS_AT_ONCE,
                                    .max_len = s->ctx },
            err);
    if (!st)
        st = perplexity_run(p, on_chunk, o, err);
    if (!st) {
        ms = (double)(tern_now_ns() - t0) / 1e6;
        if (!o->engine.quiet)
            fprintf(stderr, "%zu tokens, %u chunks of %u, %.1f tokens/s, wire %s, kv %s\n", ids->n,
                    (unsigned)p->n_chunks, (unsigned)p->n_ctx, (double)p->n_chunks * p->n_ctx * 1e3 / ms,
                    tern_boundary_name(o->engine.wire), tern_kv_type_name(o->engine.kv));
        st = o->engine.json ? print_json(p, o, ids->n, ms, err) : print_text(p, o, err);
    }
    sched_free(&s->sched); /* before the sequences it points to */
    perplexity_free(&p);
    return st;
}

int cmd_perplexity(int argc, char **argv)
{
    struct options o;
    struct session *s = NULL;
    struct tern_ids ids = { 0 };
    struct tern_err err;
    char *text = NULL;
    size_t len = 0;
    enum tern_status st = parse(argc, argv, &o, &err);

    if (st)
        return st == TERN_END ? EX_OK : cmd_fail("perplexity", &err);
    signal(SIGPIPE, SIG_IGN);
    /* Special tokens in a measured text are text. */
    if (!(st = cmd_read_file(o.file, MAX_TEXT_BYTES, &text, &len, &err))) {
        interrupt_catch();
        if (!(st = session_open(&o.engine, &s, &err)) &&
            !(st = session_encode(s, text, len, false, &ids, &err)))
            st = score(&o, &ids, s, &err);
    }
    session_close(&s);
    free(ids.ids);
    free(text);
    return st ? cmd_fail_or_end("perplexity", &err) : EX_OK;
}
