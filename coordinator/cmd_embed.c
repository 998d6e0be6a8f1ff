/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `tern embed`: vectors of texts.
 *
 * Texts are taken into a window of a few times as many as there are slots, and leave it in their order: the
 * memory does not grow with their number, but for their token ids.
 */
#include "coordinator/commands.h"
#include "coordinator/embed.h"
#include "coordinator/interrupt.h"
#include "coordinator/option_habits.h"
#include "coordinator/session.h"
#include "engine/base/log.h"
#include "engine/base/mem.h"
#include "engine/option.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>

#define MAX_TEXT_BYTES   ((size_t)1 << 30)
#define MAX_AT_ONCE      64   /* texts with a slot: a step has no more runs */
#define CACHED_POSITIONS 4096 /* all of them together, unless a single one is longer */
#define WINDOW           4    /* texts in the scheduler for each slot */
#define TURN_MS          100  /* how long a signal may go unnoticed */

enum { OPT_POOLING = ENGINE_OPT_LAST, OPT_NORMALIZE, OPT_NO_NORMALIZE };

static const struct option longs[] = {
    ENGINE_LONG_OPTIONS,
    { "prompt", required_argument, NULL, 'p' },
    { "file", required_argument, NULL, 'f' },
    { "pooling", required_argument, NULL, OPT_POOLING },
    { "normalize", no_argument, NULL, OPT_NORMALIZE },
    { "no-normalize", no_argument, NULL, OPT_NO_NORMALIZE },
    { "help", no_argument, NULL, 'h' },
    { NULL, 0, NULL, 0 },
};

static const char help[] =
    "tern embed: turns texts into vectors.\n"
    "\n"
    "usage: tern embed [-m FILE] -f LINES [options]\n"
    "       tern embed [-m FILE] -p TEXT [options]\n"
    "\n"
    "One line of numbers for each line of the file, in its order; figures go to stderr.  The vector is\n"
    "pooled as the model file says and has length 1.  Special tokens in a text are text; those around it\n"
    "are the tokenizer's own.  -c limits the tokens of one text (default: what the model was trained\n"
    "with).\n"
    "\n"
    "  -f, --file LINES          the texts, one a line (- is stdin)\n"
    "  -p, --prompt TEXT         a single text, which may have several lines\n"
    "      --pooling KIND        mean (of all tokens), cls (the first token's), last (the last's), or\n"
    "                            none: a line for every token (default: what the model file says)\n"
    "      --no-normalize        leave the vector as long as it is (--normalize: the default)\n"
    "\n";

static const char help_output[] =
    "      --json                one JSON object: {\"embeddings\": [[...]], \"tokens\": [...], ...}\n"
    "  -h, --help                this text\n";

struct options {
    struct engine_options engine;
    const char *file, *text; /* one of them */
    enum tern_pooling pooling;
    bool pooling_given, normalize;
};

/* Texts as ids: text i is ids[from[i] .. from[i + 1]). */
struct texts {
    struct tern_ids ids;
    size_t *from; /* [n + 1] */
    size_t n, longest;
};

/* What is under way: texts [first, next) in window[i % n_window]. */
struct work {
    const struct options *o;
    struct session *s;
    const struct texts *t;
    struct embed *window;
    size_t n_window, first, next;
};

/* -- options --------------------------------------------------------------------------------------------- */

static enum tern_status parse_one(struct options *o, int c, const char *arg, struct tern_err *err)
{
    enum tern_status st = engine_option(&o->engine, c, arg, err);

    if (st != TERN_END)
        return st;
    switch (c) {
    case 'p': o->text = arg; return TERN_OK;
    case 'f': o->file = arg; return TERN_OK;
    case OPT_NORMALIZE: o->normalize = true; return TERN_OK;
    case OPT_NO_NORMALIZE: o->normalize = false; return TERN_OK;
    default: break;
    }
    if (!embed_pooling_by_name(arg, &o->pooling))
        return TERN_FAIL(err, TERN_ERR_USAGE, "--pooling: '%s' is not mean, cls, last or none", arg);
    o->pooling_given = true;
    return TERN_OK;
}

/* TERN_END: --help was printed. */
static enum tern_status parse(int argc, char **argv, struct options *o, struct tern_err *err)
{
    enum tern_status st;
    int c;

    memset(o, 0, sizeof *o);
    engine_options_default(&o->engine);
    o->normalize = true;
    optind = 1;
    while ((c = option_next(argc, argv, ":" ENGINE_SHORT_OPTIONS "p:f:h", longs, NULL, err)) != -1) {
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
        return TERN_FAIL(err, TERN_ERR_USAGE, "'%s' is not an option; a text goes behind -p", argv[optind]);
    if (!o->file == !o->text)
        return TERN_FAIL(err, TERN_ERR_USAGE,
                         o->file ? "-f and -p exclude each other; give one of them"
                                 : "which texts? name a file of lines with -f, or give one with -p");
    if (o->engine.head != TERN_HEAD_AUTO)
        return TERN_FAIL(err, TERN_ERR_USAGE, "--head: an embedding needs no head; leave it out");
    o->engine.no_head = true;
    if (!o->engine.ctx)
        o->engine.ctx_trained = true;
    return engine_options_finish(&o->engine, err);
}

/* -- texts ----------------------------------------------------------------------------------------------- */

static enum tern_status add_text(struct session *s, struct texts *t, bool is_line, const char *text,
                                 size_t len, struct tern_err *err)
{
    const size_t before = t->ids.n;
    char where[32] = "the text";
    struct tern_err why;
    size_t n;

    if (is_line)
        (void)snprintf(where, sizeof where, "line %zu", t->n + 1);
    if (session_encode(s, text, len, false, &t->ids, &why))
        return TERN_FAIL(err, why.status, "%s: %.300s", where, why.text);
    n = t->ids.n - before;
    if (n > s->ctx)
        return TERN_FAIL(err, TERN_ERR_LIMIT,
                         "%s has %zu tokens and the context %u: shorten it, or give a larger -c", where, n,
                         (unsigned)s->ctx);
    t->from[++t->n] = t->ids.n;
    t->longest = n > t->longest ? n : t->longest;
    return TERN_OK;
}

/* Lines end with LF or CR LF; behind the last one there may be none. */
static enum tern_status add_lines(struct session *s, struct texts *t, const char *text, size_t len,
                                  struct tern_err *err)
{
    const char *end = text + len;
    enum tern_status st;

    while (text < end) {
        const char *lf = memchr(text, '\n', (size_t)(end - text)), *stop = lf ? lf : end;
        size_t n = (size_t)(stop - text);

        n -= lf && n && text[n - 1] == '\r';
        if ((st = interrupt_check(err)) || (st = add_text(s, t, true, text, n, err)))
            return st;
        text = lf ? lf + 1 : end;
    }
    return TERN_OK;
}

static enum tern_status make_texts(const struct options *o, struct session *s, const char *text, size_t len,
                                   struct texts *t, struct tern_err *err)
{
    size_t n = 1;

    for (size_t i = 0; i < len && !o->text; i++)
        n += text[i] == '\n';
    t->from = calloc(n + 1, sizeof *t->from);
    if (!t->from)
        return TERN_FAIL(err, TERN_ERR_MEMORY, "no memory for %zu texts", n);
    if (o->text)
        return add_text(s, t, false, text, len, err);
    if (len == 0)
        return TERN_FAIL(err, TERN_ERR_USAGE, "'%s' has no lines", o->file);
    return add_lines(s, t, text, len, err);
}

/* -- output ---------------------------------------------------------------------------------------------- */

/* Nine digits: read back they are the same float. */
static void print_row(const float *x, uint32_t n, const char *between)
{
    for (uint32_t i = 0; i < n; i++)
        printf("%s%.9g", i ? between : "", (double)x[i]);
}

static void print_embedding(const struct work *w, const struct embed *e)
{
    const bool none = e->pooling == TERN_POOL_NONE;

    if (!w->o->engine.json) {
        for (uint32_t r = 0; r < e->n_rows; r++) {
            print_row(e->out + (size_t)r * e->n_embd, e->n_embd, " ");
            putchar('\n');
        }
        return;
    }
    printf("%s\n  %s", w->first ? "," : "", none ? "[" : "");
    for (uint32_t r = 0; r < e->n_rows; r++) {
        fputs(r ? ",\n   [" : "[", stdout);
        print_row(e->out + (size_t)r * e->n_embd, e->n_embd, ",");
        putchar(']');
    }
    fputs(none ? "]" : "", stdout);
}

static void print_head(const struct work *w)
{
    if (w->o->engine.json)
        printf("{\"pooling\": \"%s\", \"normalized\": %s, \"n_embd\": %u, \"wire\": \"%s\", \"kv\": \"%s\",\n"
               " \"embeddings\": [",
               embed_pooling_name(w->o->pooling), w->o->normalize ? "true" : "false",
               (unsigned)w->s->arch.n_embd, tern_boundary_name(w->o->engine.wire),
               tern_kv_type_name(w->o->engine.kv));
}

static void print_tail(const struct work *w)
{
    if (!w->o->engine.json)
        return;
    printf("],\n \"tokens\": [");
    for (size_t i = 0; i < w->t->n; i++)
        printf("%s%zu", i ? ", " : "", w->t->from[i + 1] - w->t->from[i]);
    printf("]}\n");
}

/* -- work ------------------------------------------------------------------------------------------------ */

static enum tern_status refill(struct work *w, struct tern_err *err)
{
    enum tern_status st;

    for (; w->next < w->t->n && w->next < w->first + w->n_window; w->next++) {
        const size_t from = w->t->from[w->next];
        struct embed *e = &w->window[w->next % w->n_window];

        if ((st = embed_init(e, w->t->ids.ids + from, (uint32_t)(w->t->from[w->next + 1] - from),
                             w->s->arch.n_embd, w->o->pooling, w->o->normalize, &w->s->kern, err)))
            return st;
        if ((st = sched_add(w->s->sched, &e->seq, err))) {
            embed_fini(e);
            return st;
        }
    }
    return TERN_OK;
}

/* Prints and lets go what is done and in turn. */
static enum tern_status drain(struct work *w, struct tern_err *err)
{
    for (; w->first < w->next; w->first++) {
        struct embed *e = &w->window[w->first % w->n_window];

        if (e->seq.state != SEQ_ENDED)
            break;
        if (e->seq.failed)
            return TERN_FAIL(err, e->seq.err.status, "text %zu: %.300s", w->first + 1, e->seq.err.text);
        print_embedding(w, e);
        sched_forget(w->s->sched, &e->seq);
        embed_fini(e);
    }
    return TERN_OK;
}

static enum tern_status loop(struct work *w, struct tern_err *err)
{
    enum tern_status st;

    while (w->first < w->t->n && !ferror(stdout)) {
        if ((st = interrupt_check(err)) || (st = refill(w, err)))
            return st;
        tern_alloc_guard_begin("a step of embeddings");
        st = sched_turn(w->s->sched, TURN_MS, err);
        tern_alloc_guard_end();
        if (st && st != TERN_AGAIN && st != TERN_END)
            return st;
        if ((st = drain(w, err)))
            return st;
    }
    return TERN_OK;
}

static enum tern_status work(struct work *w, struct tern_err *err)
{
    const uint32_t longest = (uint32_t)w->t->longest;
    size_t slots = CACHED_POSITIONS / w->t->longest;
    const uint64_t t0 = tern_now_ns();
    double seconds;
    enum tern_status st;

    slots = slots < 1 ? 1 : slots > MAX_AT_ONCE ? MAX_AT_ONCE : slots;
    slots = slots < w->t->n ? slots : w->t->n;
    w->n_window = WINDOW * slots;
    w->window = calloc(w->n_window, sizeof *w->window);
    if (!w->window)
        return TERN_FAIL(err, TERN_ERR_MEMORY, "no memory for %zu texts at once", w->n_window);
    if ((st = session_connect(
             w->s, &(struct session_room){ .n_at_once = (uint32_t)slots, .max_len = longest }, err)))
        return st;
    print_head(w);
    if ((st = loop(w, err)))
        return st;
    if (ferror(stdout)) /* full, or nobody reads any more */
        return cmd_flush(err);
    print_tail(w);
    seconds = (double)(tern_now_ns() - t0) / 1e9;
    if (!w->o->engine.quiet)
        fprintf(stderr, "%zu texts, %zu tokens, %.1f tokens/s, pooling %s, wire %s, kv %s\n", w->t->n,
                w->t->ids.n, (double)w->t->ids.n / seconds, embed_pooling_name(w->o->pooling),
                tern_boundary_name(w->o->engine.wire), tern_kv_type_name(w->o->engine.kv));
    return cmd_flush(err);
}

/* -- the command ----------------------------------------------------------------------------------------- */

static enum tern_status choose_pooling(struct options *o, const struct session *s, struct tern_err *err)
{
    if (o->pooling_given)
        return TERN_OK;
    o->pooling = s->arch.pooling;
    if (o->pooling == TERN_POOL_NONE)
        return TERN_FAIL(err, TERN_ERR_USAGE,
                         "%s is a model that writes text and does not say how to pool its rows; choose with "
                         "--pooling mean, last, cls or none",
                         s->gguf->name);
    return TERN_OK;
}

static enum tern_status embed_all(struct options *o, const char *text, size_t len, struct tern_err *err)
{
    struct session *s = NULL;
    struct texts t = { 0 };
    struct work w = { .o = o, .t = &t };
    enum tern_status st = session_open(&o->engine, &s, err);

    w.s = s;
    if (!st && !(st = choose_pooling(o, s, err)) && !(st = make_texts(o, s, text, len, &t, err)))
        st = work(&w, err);
    session_close(&s); /* the scheduler points to the sequences */
    for (size_t i = w.first; i < w.next; i++)
        embed_fini(&w.window[i % w.n_window]);
    free(w.window);
    free(t.from);
    free(t.ids.ids);
    return st;
}

int cmd_embed(int argc, char **argv)
{
    struct options o;
    struct tern_err err;
    char *text = NULL;
    size_t len = 0;
    enum tern_status st = parse(argc, argv, &o, &err);

    if (st)
        return st == TERN_END ? EX_OK : cmd_fail("embed", &err);
    signal(SIGPIPE, SIG_IGN);
    if (o.text || !(st = cmd_read_file(o.file, MAX_TEXT_BYTES, &text, &len, &err))) {
        interrupt_catch();
        st = embed_all(&o, o.text ? o.text : text, o.text ? strlen(o.text) : len, &err);
    }
    free(text);
    return st ? cmd_fail_or_end("embed", &err) : EX_OK;
}
