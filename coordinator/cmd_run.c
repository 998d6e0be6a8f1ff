/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `tern run`: prompts in, text out.
 *
 * Open the model, tokenize, connect the pipeline, queue one sequence per prompt, turn the scheduler until
 * all have ended, showing text as it becomes final.  The first of several prompts streams; each later one
 * is shown when those before it have ended.
 */
#include "coordinator/commands.h"
#include "coordinator/generate.h"
#include "coordinator/interrupt.h"
#include "coordinator/run_options.h"
#include "coordinator/run_output.h"
#include "coordinator/session.h"
#include "coordinator/terminal_text.h"
#include "engine/base/log.h"
#include "engine/base/mem.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>
#include <unistd.h>

#define MAX_AT_ONCE 32  /* sequences with a KV cache at one time; others wait */
#define TURN_MS     100 /* how long a signal may go unnoticed */

struct run {
    struct run_options o;
    struct session *s;
    struct generate *gens; /* [o.n_prompts] */
    uint32_t n_gens;       /* initialised ones */
    uint32_t showing;      /* the one whose text is on the screen */
    bool headed;           /* its header has been printed */
    size_t shown;          /* bytes of it */
    bool closed;           /* nobody reads stdout any more */
    bool terminal;         /* stdout is one */
    struct terminal_text safe;
    uint64_t t0_ns, t1_ns;
};

/* -- showing text ---------------------------------------------------------------------------------------- */

/* A reader who went away ends the run without a word; any other failure is one. */
static enum tern_status put(struct run *r, const char *text, size_t n, struct tern_err *err)
{
    errno = 0;
    if (r->closed || (terminal_text_write(&r->safe, stdout, r->terminal, text, n) && fflush(stdout) == 0))
        return TERN_OK;
    if (errno != EPIPE)
        return TERN_FAIL_SYS(err, TERN_ERR_IO, errno, "cannot write to stdout: %s", strerror(errno));
    r->closed = true;
    return TERN_OK;
}

/* "== 2/3: Once upon a time": the prompt's first line, shortened. */
static enum tern_status put_header(struct run *r, struct tern_err *err)
{
    const struct run_prompt *p = &r->o.prompts[r->showing];
    struct tern_utf8 u = { 0 };
    char line[400];
    size_t len = 0;
    int n;
    enum tern_status st;

    if (r->o.n_prompts > 1) {
        n = snprintf(line, sizeof line, "== %u/%u: ", (unsigned)r->showing + 1, (unsigned)r->o.n_prompts);
        while (len < p->len && len < 60 && p->text[len] != '\n')
            len++;
        n += (int)tern_utf8_feed(&u, p->text, len, line + n);
        line[n++] = '\n';
        if ((st = put(r, line, (size_t)n, err)))
            return st;
    }
    if (r->o.display_prompt || r->o.default_prompt)
        return put(r, p->text, p->len, err);
    return TERN_OK;
}

/* Shows whatever is final and in turn. */
static enum tern_status show(struct run *r, struct tern_err *err)
{
    enum tern_status st;

    while (!r->o.engine.json && r->showing < r->n_gens) {
        struct generate *g = &r->gens[r->showing];
        bool ended = generate_ended(g);
        struct tern_str text;

        if (!r->headed && (st = put_header(r, err)))
            return st;
        r->headed = true;
        text = generate_ready(g, &r->shown);
        if (text.len && (st = put(r, text.ptr, text.len, err)))
            return st;
        if (!ended)
            return TERN_OK;
        if ((st = put(r, "\n", 1, err)))
            return st;
        r->showing++;
        r->shown = 0;
        r->headed = false;
    }
    return TERN_OK;
}

/* -- the loop -------------------------------------------------------------------------------------------- */

/* Ends what has not ended: failed with err, or interrupted when that is NULL. */
static void stop_all(struct run *r, const struct tern_err *err)
{
    for (uint32_t i = 0; i < r->n_gens; i++) {
        if (generate_ended(&r->gens[i]))
            continue;
        if (err)
            seq_fail(&r->gens[i].seq, err);
        else
            generate_stop(&r->gens[i], GENERATE_INTERRUPTED);
        (void)generate_ended(&r->gens[i]);
    }
}

static enum tern_status reserve_all(struct run *r, struct tern_err *err)
{
    enum tern_status st = TERN_OK;

    for (uint32_t i = 0; i < r->n_gens && !st; i++)
        st = generate_reserve(&r->gens[i], err);
    return st;
}

static bool all_ended(struct run *r)
{
    for (uint32_t i = 0; i < r->n_gens; i++)
        if (!generate_ended(&r->gens[i]))
            return false;
    return true;
}

/* Until every sequence has ended, a signal came, nobody reads, or the pipeline broke. */
static enum tern_status loop(struct run *r, struct tern_err *err)
{
    enum tern_status st = TERN_OK;

    while (!all_ended(r) && !interrupt_signal() && !r->closed) {
        if ((st = reserve_all(r, err)))
            return st;
        tern_alloc_guard_begin("a token");
        st = sched_turn(r->s->sched, TURN_MS, err);
        if (st == TERN_OK || st == TERN_AGAIN)
            st = show(r, err);
        tern_alloc_guard_end();
        if (st == TERN_END && !all_ended(r))
            return TERN_FAIL(err, TERN_ERR_STATE,
                             "the scheduler has nothing to do but not every text has ended");
        if (st && st != TERN_END)
            return st;
    }
    return TERN_OK;
}

/* -- set-up ---------------------------------------------------------------------------------------------- */

static enum tern_status open_logits(struct run *r, uint32_t i, struct tern_err *err)
{
    char path[4160];

    if (!r->o.logits_out)
        return TERN_OK;
    if (r->o.n_prompts > 1)
        snprintf(path, sizeof path, "%s.%u", r->o.logits_out, (unsigned)i + 1);
    else
        snprintf(path, sizeof path, "%s", r->o.logits_out);
    r->gens[i].logits_out = fopen(path, "wb");
    if (!r->gens[i].logits_out)
        return TERN_FAIL_SYS(err, TERN_ERR_IO, errno, "--logits-out: cannot write '%s': %s", path,
                             strerror(errno));
    return TERN_OK;
}

static enum tern_status prepare_one(struct run *r, uint32_t i, struct tern_err *err)
{
    const struct run_prompt *p = &r->o.prompts[i];
    struct session *s = r->s;
    struct tern_ids ids = { 0 };
    enum tern_status st = session_encode(s, p->text, p->len, true, &ids, err);

    if (!st && ids.n > s->ctx)
        st = TERN_FAIL(err, TERN_ERR_LIMIT,
                       "the prompt has %zu tokens and the context has room for %u; shorten it or raise -c",
                       ids.n, (unsigned)s->ctx);
    if (!st)
        st = generate_init(&r->gens[i], &r->o.answer.gen, s->tok, &s->kern, s->arch.n_vocab, ids.ids,
                           (uint32_t)ids.n, err);
    if (!st) {
        r->n_gens = i + 1;
        st = open_logits(r, i, err);
    }
    free(ids.ids);
    return st;
}

/* Model, prompts, pipeline: everything before the first step. */
static enum tern_status prepare(struct run *r, struct tern_err *err)
{
    uint32_t longest = 0, n = r->o.n_prompts;
    enum tern_status st;

    interrupt_catch();
    r->terminal = isatty(STDOUT_FILENO) == 1;
    st = session_open(&r->o.engine, &r->s, err);
    if (st)
        return st;
    r->o.answer.gen.ctx = r->s->ctx;
    if (r->o.answer.gen.ignore_eos &&
        (st = generate_forbid_eog(&r->o.answer.gen.sample, r->s->tok, r->s->arch.n_vocab, err)))
        return st;
    if ((st = answer_options_bind(&r->o.answer, r->s->tok, r->s->arch.n_vocab, err)))
        return st;
    r->gens = calloc(n, sizeof *r->gens);
    if (!r->gens)
        return TERN_FAIL(err, TERN_ERR_MEMORY, "no memory for %u prompts", (unsigned)n);
    for (uint32_t i = 0; i < n; i++) {
        if ((st = prepare_one(r, i, err)))
            return st;
        longest = r->gens[i].seq.max_len > longest ? r->gens[i].seq.max_len : longest;
    }
    if ((st = session_connect(
             r->s,
             &(struct session_room){ .n_at_once = n < MAX_AT_ONCE ? n : MAX_AT_ONCE, .max_len = longest },
             err)))
        return st;
    for (uint32_t i = 0; i < n; i++)
        if ((st = sched_add(r->s->sched, &r->gens[i].seq, err)))
            return st;
    return TERN_OK;
}

/* -- the end --------------------------------------------------------------------------------------------- */

static enum tern_status close_logits(struct run *r, struct tern_err *err)
{
    enum tern_status st = TERN_OK;

    for (uint32_t i = 0; i < r->n_gens; i++) {
        FILE *f = r->gens[i].logits_out;

        r->gens[i].logits_out = NULL;
        if (f && (ferror(f) | fclose(f)))
            st = TERN_FAIL_SYS(err, TERN_ERR_IO, errno, "--logits-out: cannot write '%s': %s",
                               r->o.logits_out, strerror(errno));
    }
    return st;
}

/* One sentence per sequence that failed; the exit code of the first. */
static int report_failed(const struct run *r)
{
    int code = EX_OK;

    for (uint32_t i = 0; i < r->n_gens; i++) {
        const struct seq *q = &r->gens[i].seq;

        if (!q->failed)
            continue;
        if (r->n_gens > 1)
            fprintf(stderr, "tern run: prompt %u: %s\n", (unsigned)i + 1, q->err.text);
        else
            cmd_fail("run", &q->err);
        if (!code)
            code = tern_status_exit_code(q->err.status);
    }
    return code;
}

/* Everything that is said after the last step.  st, err: how the loop ended. */
static int conclude(struct run *r, enum tern_status st, struct tern_err *err)
{
    int code = EX_OK;
    struct tern_err e;

    stop_all(r, st ? err : NULL);
    if (st != TERN_ERR_IO && show(r, &e) && !st)
        code = cmd_fail("run", &e);
    if (r->o.engine.json) {
        if (run_output_json(r->s, r->gens, r->n_gens, r->o.answer.gen.sample.seed, &e) && !st)
            code = cmd_fail("run", &e);
        r->closed = ferror(stdout) != 0;
    } else if (!r->o.engine.quiet) {
        run_output_figures(r->s, r->gens, r->n_gens, r->t1_ns - r->t0_ns, r->o.answer.gen.sample.seed);
    }
    if (st)
        code = cmd_fail("run", err);
    else if (!code)
        code = report_failed(r);
    if (close_logits(r, &e) && !code)
        code = cmd_fail("run", &e);
    if (interrupt_signal())
        return 128 + interrupt_signal();
    return r->closed && !code ? 128 + SIGPIPE : code; /* as if the signal had not been ignored */
}

static void run_free(struct run *r)
{
    struct tern_err e;

    (void)!close_logits(r, &e);
    session_close(&r->s); /* the scheduler holds pointers to the sequences */
    for (uint32_t i = 0; i < r->n_gens; i++)
        generate_fini(&r->gens[i]);
    free(r->gens);
    run_options_free(&r->o);
    free(r);
}

int cmd_run(int argc, char **argv)
{
    struct run *r = calloc(1, sizeof *r);
    struct tern_err err;
    enum tern_status st;
    int code = EX_OK;

    if (!r) {
        (void)TERN_FAIL(&err, TERN_ERR_MEMORY, "no memory to start");
        return cmd_fail("run", &err);
    }
    signal(SIGPIPE, SIG_IGN);
    if ((st = run_options_parse(argc, argv, &r->o, &err))) {
        if (st != TERN_END)
            code = cmd_fail("run", &err);
    } else if ((st = prepare(r, &err))) {
        code = cmd_fail_or_end("run", &err);
    } else {
        r->t0_ns = tern_now_ns();
        st = loop(r, &err);
        r->t1_ns = tern_now_ns();
        code = conclude(r, st, &err);
    }
    run_free(r);
    return code;
}
