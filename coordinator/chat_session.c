/* SPDX-License-Identifier: Apache-2.0 */
/* A conversation with a model, turn by turn: see chat_session.h. */
#include "coordinator/chat_session.h"

#include "coordinator/interrupt.h"
#include "coordinator/session.h"
#include "engine/base/mem.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TURN_MS 100 /* how long a signal may go unnoticed */

struct model_chat {
    struct chat chat; /* first: kinds get this */
    const struct chat_options *o;
    struct session *s;           /* connected with one slot of s->ctx positions */
    struct generate_options gen; /* with the format's ends */
    char stop[GENERATE_MAX_STOP_BYTES + 1];
    int32_t end_id;
    const struct tern_chat_format *format;
    const char *why;        /* this format */
    struct generate answer; /* the last one */
    bool live;              /* answer holds the first n_known messages */
    size_t n_known;
    uint32_t n_cached; /* its positions in the caches when the last turn began */
};

static struct model_chat *of(struct chat *c)
{
    return (struct model_chat *)c;
}

static const struct model_chat *of_const(const struct chat *c)
{
    return (const struct model_chat *)c;
}

/* The sequence goes; what was said stays. */
static void give_up(struct model_chat *c)
{
    if (!c->live)
        return;
    sched_forget(c->s->sched, &c->answer.seq);
    generate_fini(&c->answer);
    c->live = false;
    c->n_known = 0;
}

/* Tokens in use of s->ctx. */
static uint32_t in_use(const struct model_chat *c)
{
    struct tern_str left;

    return c->live ? generate_length(&c->answer, &left) : 0;
}

/* -- one turn -------------------------------------------------------------------------------------------- */

/* The ids that go behind those the sequence has: all that is new, and the beginning of an answer. */
static enum tern_status encode_new(const struct model_chat *c, const struct transcript *log, bool whole,
                                   bool ask, struct tern_ids *ids, struct tern_err *err)
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
static enum tern_status drain(struct model_chat *c, struct tern_err *err)
{
    enum tern_status st;

    do
        st = sched_turn(c->s->sched, TURN_MS, err);
    while (st == TERN_OK || st == TERN_AGAIN);
    c->chat.broken = st != TERN_END;
    return c->chat.broken ? st : TERN_OK;
}

static enum tern_status pass_on(const struct tern_err *from, struct tern_err *err)
{
    if (err)
        *err = *from;
    return from->status;
}

static enum tern_status begin(struct model_chat *c, const struct tern_ids *ids, struct tern_err *err)
{
    enum tern_status st;

    c->n_cached = 0;
    if (c->live) {
        st = drain(c, err);
        c->n_cached = in_use(c) < c->answer.seq.n_sent ? in_use(c) : c->answer.seq.n_sent;
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
static enum tern_status turn(struct model_chat *c, struct tern_err *err)
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
            taken = c->chat.on_text(c->chat.user, text.ptr, text.len);
        tern_alloc_guard_end();
        if (st == TERN_END && !generate_ended(&c->answer))
            st = TERN_FAIL(err, TERN_ERR_STATE,
                           "the scheduler has nothing to do but the answer has not ended");
        if (st && st != TERN_AGAIN && st != TERN_END) {
            c->chat.broken = true;
            return st;
        }
    } while (!generate_ended(&c->answer));
    return TERN_OK;
}

static void note_figures(struct model_chat *c)
{
    const struct generate *g = &c->answer;
    struct chat_figures *f = &c->chat.figures;

    f->n_prompt = g->n_kept + g->n_prompt - c->n_cached;
    f->n_kept = c->n_cached;
    f->n_tokens = g->n_tokens;
    f->first_ms = g->seq.t_first_ns ? (double)(g->seq.t_first_ns - g->seq.t_start_ns) / 1e6 : 0;
    f->rest_ms = g->seq.t_first_ns ? (double)(g->seq.t_last_ns - g->seq.t_first_ns) / 1e6 : 0;
    f->rows_sent = (int64_t)sched_stats(c->s->sched)->rows;
}

static enum tern_status check_fits(const struct model_chat *c, uint32_t kept, size_t n, struct tern_err *err)
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
static enum tern_status try_turn(struct model_chat *c, bool *begun, struct tern_err *err)
{
    const struct tern_str *words = &c->chat.log.messages[c->chat.log.n - 1].content;
    struct tern_ids ids = { 0 };
    enum tern_status st = encode_new(c, &c->chat.log, !c->live, true, &ids, err);

    if (!st)
        st = check_fits(c, in_use(c), ids.n, err);
    if (!st)
        st = session_dump(c->s, words->ptr, words->len, &ids, 0, err);
    *begun = !st;
    if (!st && !(st = begin(c, &ids, err)) && !(st = turn(c, err)) && c->answer.seq.failed)
        st = pass_on(&c->answer.seq.err, err);
    free(ids.ids);
    return st;
}

/* -- the kind of chat ------------------------------------------------------------------------------------ */

static void forget(struct chat *chat)
{
    give_up(of(chat));
}

static void note_end(struct model_chat *c)
{
    struct chat_answer *a = &c->chat.answer;

    *a = (struct chat_answer){ .text = c->answer.text, .n_text = c->answer.n_text, .end = c->answer.end };
    if (a->end == GENERATE_CONTEXT)
        (void)snprintf(a->note, sizeof a->note,
                       "the context of %u tokens is full, so the answer ends here; begin a new conversation "
                       "with /reset, or start with a larger -c",
                       (unsigned)c->s->ctx);
}

static enum tern_status ask(struct chat *chat, struct tern_err *err)
{
    struct model_chat *c = of(chat);
    bool begun;
    enum tern_status st = try_turn(c, &begun, err);

    if (st) {
        if (begun)
            give_up(c);
        return st;
    }
    c->n_known = chat->log.n + 1; /* and the answer */
    note_figures(c);
    note_end(c);
    return TERN_OK;
}

static enum tern_status check(struct chat *chat, const struct transcript *t, struct tern_err *err)
{
    struct model_chat *c = of(chat);
    struct tern_ids ids = { 0 };
    enum tern_status st = t->n ? encode_new(c, t, true, false, &ids, err) : TERN_OK;

    if (!st)
        st = check_fits(c, 0, ids.n, err);
    free(ids.ids);
    return st;
}

static void describe(const struct chat *chat, FILE *to)
{
    const struct model_chat *c = of_const(chat);

    fprintf(to, "%s, template %s (%s), context of %u tokens", c->s->gguf->name,
            tern_chat_format_name(c->format), c->why, (unsigned)c->s->ctx);
}

static void stats(const struct chat *chat, FILE *to)
{
    const struct model_chat *c = of_const(chat);
    const struct sched_stats *s = sched_stats(c->s->sched);

    fprintf(to, "template %s (%s); %zu messages, %u of %u tokens in the context\n",
            tern_chat_format_name(c->format), c->why, chat->log.n, (unsigned)in_use(c), (unsigned)c->s->ctx);
    fprintf(to, "all: %u answers, %llu tokens sent through the layers in %llu steps\n",
            (unsigned)chat->figures.n_answers, (unsigned long long)s->rows, (unsigned long long)s->steps);
}

static enum tern_status begin_talk(struct chat *chat, struct tern_err *err)
{
    struct session *s = of(chat)->s;

    return session_connect(s, &(struct session_room){ .n_at_once = 1, .max_len = s->ctx }, err);
}

static void close_talk(struct chat *chat)
{
    struct model_chat *c = of(chat);

    if (c->s)
        give_up(c);
    session_close(&c->s);
    free(c);
}

static const struct chat_kind model_kind = { begin_talk, ask, check, forget, describe, stats, close_talk };

/* -- opening --------------------------------------------------------------------------------------------- */

static enum tern_status choose_format(struct model_chat *c, struct tern_err *err)
{
    struct tern_chat_choice found = { c->o->format, "by --chat-template", false };
    enum tern_status st = c->o->format ? TERN_OK : tern_chat_choose(c->s->gguf, c->s->tok, &found, err);

    if (st)
        return st;
    if (found.guessed && !c->o->engine.quiet)
        fprintf(
            stderr,
            "tern chat: note: %s has no chat template, and no tokens of a known one: its text is continued "
            "as it is (--chat-template NAME says how to talk to it)\n",
            c->s->gguf->name);
    c->why = found.why;
    c->format = found.format;
    return TERN_OK;
}

/* The options of answers, with the format's ends. */
static enum tern_status choose_ends(struct model_chat *c, struct tern_err *err)
{
    struct tern_str stop = tern_chat_end_text(c->format, c->s->tok);

    c->gen = c->o->answer.gen;
    c->gen.ctx = c->s->ctx;
    c->gen.keep = true;
    c->end_id = tern_chat_end_token(c->format, c->s->tok);
    c->gen.end_id = c->end_id >= 0 ? &c->end_id : NULL;
    TERN_BUG_IF(stop.len > GENERATE_MAX_STOP_BYTES || c->gen.n_stops > GENERATE_MAX_STOPS);
    if (stop.len) {
        memcpy(c->stop, stop.ptr, stop.len);
        c->gen.stops[c->gen.n_stops++] = c->stop;
    }
    return c->gen.ignore_eos ? generate_forbid_eog(&c->gen.sample, c->s->tok, c->s->arch.n_vocab, err)
                             : TERN_OK;
}

enum tern_status chat_session_open(struct chat_options *o, struct chat **out, struct tern_err *err)
{
    struct model_chat *c = calloc(1, sizeof *c);
    enum tern_status st;

    if (!c)
        return TERN_FAIL(err, TERN_ERR_MEMORY, "no memory for a conversation");
    c->chat.kind = &model_kind;
    c->o = o;
    if ((st = session_open(&o->engine, &c->s, err)) || (st = choose_format(c, err)) ||
        (st = answer_options_bind(&o->answer, c->s->tok, c->s->arch.n_vocab, err)) ||
        (st = choose_ends(c, err))) {
        close_talk(&c->chat);
        return st;
    }
    *out = &c->chat;
    return TERN_OK;
}
