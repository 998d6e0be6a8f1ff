/* SPDX-License-Identifier: Apache-2.0 */
/* A conversation turn by turn: see chat_session.h. */
#include "coordinator/chat_session.h"

#include "coordinator/interrupt.h"
#include "engine/base/mem.h"

#include <stdlib.h>
#include <string.h>

#define TURN_MS 100 /* how long a signal may go unnoticed */

enum tern_status chat_init(struct chat *c, struct session *s, const struct tern_chat_format *format,
                           const struct generate_options *gen, struct tern_err *err)
{
    struct tern_str stop = tern_chat_end_text(format, s->tok);

    memset(c, 0, sizeof *c);
    c->s = s;
    c->format = format;
    c->gen = *gen;
    c->gen.ctx = s->ctx;
    c->gen.keep = true;
    c->end_id = tern_chat_end_token(format, s->tok);
    c->gen.end_id = c->end_id >= 0 ? &c->end_id : NULL;
    TERN_BUG_IF(stop.len > GENERATE_MAX_STOP_BYTES || gen->n_stops > GENERATE_MAX_STOPS);
    if (stop.len) {
        memcpy(c->stop, stop.ptr, stop.len);
        c->gen.stops[c->gen.n_stops++] = c->stop;
    }
    return c->gen.ignore_eos ? generate_forbid_eog(&c->gen.sample, s->tok, s->arch.n_vocab, err) : TERN_OK;
}

/* The sequence goes; what was said stays. */
static void give_up(struct chat *c)
{
    if (!c->live)
        return;
    sched_forget(c->s->sched, &c->answer.seq);
    generate_fini(&c->answer);
    c->live = false;
    c->n_known = 0;
}

void chat_fini(struct chat *c)
{
    if (c->s)
        give_up(c);
    transcript_free(&c->log);
}

uint32_t chat_length(const struct chat *c)
{
    struct tern_str left;

    return c->live ? generate_length(&c->answer, &left) : 0;
}

/* -- one turn -------------------------------------------------------------------------------------------- */

/* The ids that go behind those the sequence has: all that is new, and the beginning of an answer. */
static enum tern_status encode_new(const struct chat *c, const struct transcript *log, bool whole, bool ask,
                                   struct tern_ids *ids, struct tern_err *err)
{
    const size_t from = whole ? 0 : c->n_known;
    struct tern_chat_prompt p = { 0 };
    struct tern_str left = { "", 0 };
    enum tern_status st;

    if (!whole)
        (void)generate_length(&c->answer, &left);
    st = tern_chat_add_content(&p, left.ptr, left.len, err);
    if (!st)
        st = tern_chat_render(c->format, log->messages, log->n, from, ask, &p, err);
    if (!st)
        st = tern_chat_encode(c->format, c->s->tok, &p, whole, ids, err);
    tern_chat_prompt_free(&p);
    if (!st)
        st = session_check_ids(c->s, ids, 0, err);
    return st;
}

/* What is in flight of the last answer comes home and is dropped. */
static enum tern_status drain(struct chat *c, struct tern_err *err)
{
    enum tern_status st;

    do
        st = sched_turn(c->s->sched, TURN_MS, err);
    while (st == TERN_OK || st == TERN_AGAIN);
    c->broken = st != TERN_END;
    return c->broken ? st : TERN_OK;
}

static enum tern_status pass_on(const struct tern_err *from, struct tern_err *err)
{
    if (err)
        *err = *from;
    return from->status;
}

static enum tern_status begin(struct chat *c, const struct tern_ids *ids, struct tern_err *err)
{
    enum tern_status st;

    c->n_cached = 0;
    if (c->live) {
        st = drain(c, err);
        c->n_cached = chat_length(c) < c->answer.seq.n_sent ? chat_length(c) : c->answer.seq.n_sent;
        if (!st && c->answer.seq.failed)
            st = pass_on(&c->answer.seq.err, err);
        return st ? st : generate_more(&c->answer, ids->ids, (uint32_t)ids->n, err);
    }
    st = generate_init(&c->answer, &c->gen, c->s->tok, &c->s->kern, c->s->arch.n_vocab, ids->ids,
                       (uint32_t)ids->n, err);
    if (st)
        return st;
    c->live = true;
    return sched_add(c->s->sched, &c->answer.seq, err);
}

/* Until the answer has ended; text goes out as it becomes final. */
static enum tern_status turn(struct chat *c, struct tern_err *err)
{
    enum tern_status st = TERN_OK;
    struct tern_str text;
    size_t shown = 0;
    bool taken = true;

    do {
        if ((st = generate_reserve(&c->answer, err)))
            return st;
        tern_alloc_guard_begin("a token");
        st = sched_turn(c->s->sched, TURN_MS, err);
        if (interrupt_signal() || !taken)
            generate_stop(&c->answer, GENERATE_INTERRUPTED);
        (void)generate_ended(&c->answer);
        text = generate_ready(&c->answer, &shown);
        if (text.len && taken)
            taken = c->on_text(c->user, text.ptr, text.len);
        tern_alloc_guard_end();
        if (st == TERN_END && !generate_ended(&c->answer))
            st = TERN_FAIL(err, TERN_ERR_STATE,
                           "the scheduler has nothing to do but the answer has not ended");
        if (st && st != TERN_AGAIN && st != TERN_END) {
            c->broken = true;
            return st;
        }
    } while (!generate_ended(&c->answer));
    return TERN_OK;
}

static void note_figures(struct chat *c)
{
    const struct generate *g = &c->answer;
    struct chat_figures *f = &c->figures;

    f->n_answers++;
    f->n_prompt = g->n_kept + g->n_prompt - c->n_cached;
    f->n_kept = c->n_cached;
    f->n_tokens = g->n_tokens;
    f->first_ms = g->seq.t_first_ns ? (double)(g->seq.t_first_ns - g->seq.t_start_ns) / 1e6 : 0;
    f->rest_ms = g->seq.t_first_ns ? (double)(g->seq.t_last_ns - g->seq.t_first_ns) / 1e6 : 0;
}

static enum tern_status check_fits(const struct chat *c, uint32_t kept, size_t n, struct tern_err *err)
{
    if (kept <= c->s->ctx && n <= c->s->ctx - kept) /* the last token of a full one has no position */
        return TERN_OK;
    return TERN_FAIL(
        err, TERN_ERR_LIMIT,
        "the conversation takes %zu tokens with this and the context has room for %u; begin a new one "
        "with /reset, or start with a larger -c",
        kept + n, (unsigned)c->s->ctx);
}

/* A failure after *begun leaves a sequence that holds more than was said. */
static enum tern_status ask(struct chat *c, bool *begun, struct tern_err *err)
{
    const struct tern_str *words = &c->log.messages[c->log.n - 1].content;
    struct tern_ids ids = { 0 };
    enum tern_status st = encode_new(c, &c->log, !c->live, true, &ids, err);

    if (!st)
        st = check_fits(c, chat_length(c), ids.n, err);
    if (!st)
        st = session_dump(c->s, words->ptr, words->len, &ids, 0, err);
    *begun = !st;
    if (!st && !(st = begin(c, &ids, err)) && !(st = turn(c, err)) && c->answer.seq.failed)
        st = pass_on(&c->answer.seq.err, err);
    free(ids.ids);
    return st;
}

enum tern_status chat_ask(struct chat *c, const char *text, size_t len, struct tern_err *err)
{
    const size_t n_before = c->log.n;
    bool begun;
    enum tern_status st = transcript_add(&c->log, TERN_CHAT_USER, text, len, err);

    if (st)
        return st;
    st = ask(c, &begun, err);
    if (!st)
        st = transcript_add(&c->log, TERN_CHAT_ASSISTANT, c->answer.text, c->answer.n_text, err);
    if (st) {
        transcript_cut(&c->log, n_before);
        if (begun)
            give_up(c);
        return st;
    }
    c->n_known = c->log.n;
    note_figures(c);
    return TERN_OK;
}

/* -- changes --------------------------------------------------------------------------------------------- */

void chat_reset(struct chat *c)
{
    give_up(c);
    transcript_cut(&c->log, transcript_system(&c->log) ? 1 : 0);
}

enum tern_status chat_set_system(struct chat *c, const char *text, size_t len, struct tern_err *err)
{
    enum tern_status st = transcript_set_system(&c->log, text, len, err);

    if (!st)
        give_up(c);
    return st;
}

enum tern_status chat_set_log(struct chat *c, struct transcript *t, struct tern_err *err)
{
    struct tern_ids ids = { 0 };
    enum tern_status st = t->n ? encode_new(c, t, true, false, &ids, err) : TERN_OK;

    if (!st)
        st = check_fits(c, 0, ids.n, err);
    free(ids.ids);
    if (st)
        return st;
    give_up(c);
    transcript_free(&c->log);
    c->log = *t;
    memset(t, 0, sizeof *t);
    return TERN_OK;
}
