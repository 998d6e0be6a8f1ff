/* SPDX-License-Identifier: Apache-2.0 */
/* Jobs: see job.h for the reader's side and job_inner.h for the other. */
#include "coordinator/serve/job_inner.h"
#include "coordinator/serve/service_inner.h"

#include "coordinator/grammar.h"
#include "engine/base/log.h"

#include <stdlib.h>
#include <string.h>

/* -- life ------------------------------------------------------------------------------------------------ */

static enum tern_status check(const struct session *s, const struct job_request *r, struct tern_err *err)
{
    if (r->n_ids == 0)
        return TERN_FAIL(err, TERN_ERR_USAGE, "the prompt is empty");
    if (r->n_ids > s->ctx)
        return TERN_FAIL(err, TERN_ERR_LIMIT, "the prompt has %u tokens and the context has room for %u",
                         (unsigned)r->n_ids, (unsigned)s->ctx);
    for (uint32_t i = 0; i < r->n_ids; i++)
        if (r->ids[i] < 0 || (uint32_t)r->ids[i] >= s->arch.n_vocab)
            return TERN_FAIL(err, TERN_ERR_USAGE, "the prompt's token %d is none of the model's %u",
                             (int)r->ids[i], (unsigned)s->arch.n_vocab);
    if (r->kind == JOB_EMBED)
        return TERN_OK;
    if (!s->head)
        return TERN_FAIL(err, TERN_ERR_UNSUPPORTED, "this model writes no text");
    if (r->gen.n_stops > GENERATE_MAX_STOPS + 1)
        return TERN_FAIL(err, TERN_ERR_LIMIT, "more than %d stop strings", GENERATE_MAX_STOPS);
    for (uint32_t i = 0; i < r->gen.n_stops; i++)
        if (r->gen.stops[i][0] == '\0' || strlen(r->gen.stops[i]) > GENERATE_MAX_STOP_BYTES)
            return TERN_FAIL(err, TERN_ERR_LIMIT, "a stop string has 1 to %d bytes", GENERATE_MAX_STOP_BYTES);
    if (r->grammar && !r->gen.grammar_vocab)
        return TERN_FAIL(err, TERN_ERR_USAGE, "a grammar without the tokens it is about");
    if (r->gen.n_logprobs > LOGPROBS_MAX_TOP)
        return TERN_FAIL(err, TERN_ERR_LIMIT, "log-probabilities of more than %d tokens", LOGPROBS_MAX_TOP);
    return TERN_OK;
}

/* All stop strings in one piece of memory. */
static enum tern_status copy_stops(struct job *j, struct tern_err *err)
{
    struct generate_options *g = &j->r.gen;
    size_t n = 0;
    char *at;

    for (uint32_t i = 0; i < g->n_stops; i++)
        n += strlen(g->stops[i]) + 1;
    if (n == 0)
        return TERN_OK;
    at = j->stops = malloc(n);
    if (!at)
        return TERN_FAIL(err, TERN_ERR_MEMORY, "no memory for the stop strings");
    for (uint32_t i = 0; i < g->n_stops; i++) {
        size_t len = strlen(g->stops[i]) + 1;

        memcpy(at, g->stops[i], len);
        g->stops[i] = at;
        at += len;
    }
    return TERN_OK;
}

static enum tern_status init_text(struct job *j, const struct session *s, const int32_t *ids,
                                  uint32_t max_tokens, struct tern_err *err)
{
    struct generate_options *g = &j->r.gen;
    enum tern_status st = copy_stops(j, err);

    if (st)
        return st;
    g->ctx = s->ctx;
    g->keep = false;
    g->shift = j->r.shift;
    g->n_keep = j->r.n_keep;
    g->grammar = j->r.grammar;
    if (max_tokens && g->n_predict > max_tokens)
        g->n_predict = max_tokens;
    if (g->end_id) {
        j->end_id = *g->end_id;
        g->end_id = &j->end_id;
    }
    return generate_init(&j->gen, g, s->tok, &s->kern, s->arch.n_vocab, ids, j->r.n_ids, err);
}

enum tern_status job_new(const struct session *s, const struct job_request *r, uint32_t max_tokens,
                         struct job **out, struct tern_err *err)
{
    pthread_condattr_t attr;
    struct job *j;
    struct seq *q;
    enum tern_status st = check(s, r, err);

    if (st)
        return st;
    j = calloc(1, sizeof *j);
    if (!j)
        return TERN_FAIL(err, TERN_ERR_MEMORY, "no memory for a request");
    j->r = *r;
    j->r.ids = NULL;
    j->r.grammar = r->kind == JOB_TEXT && r->grammar ? grammar_hold(r->grammar) : NULL;
    if (r->kind == JOB_EMBED)
        st = embed_init(&j->embed, r->ids, r->n_ids, s->arch.n_embd, r->pooling, r->normalize, &s->kern, err);
    else
        st = init_text(j, s, r->ids, max_tokens, err);
    if (st) {
        grammar_drop(&j->r.grammar);
        free(j->stops);
        free(j);
        return st;
    }
    q = job_seq(j);
    q->client = r->client;
    q->whom = r->user;
    q->no_cache = r->no_cache;
    j->t_submit_ns = tern_now_ns();
    j->state.n_prompt = r->n_ids;
    j->state.stop = j->state.slot = j->slot = -1;
    atomic_init(&j->holders, 2);
    atomic_init(&j->cancelled, false);
    pthread_mutex_init(&j->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&j->changed, &attr);
    pthread_condattr_destroy(&attr);
    *out = j;
    return TERN_OK;
}

void job_drop(struct job *j)
{
    if (atomic_fetch_sub(&j->holders, 1) != 1)
        return;
    if (j->r.kind == JOB_EMBED)
        embed_fini(&j->embed);
    else
        generate_fini(&j->gen);
    grammar_drop(&j->r.grammar);
    pthread_cond_destroy(&j->changed);
    pthread_mutex_destroy(&j->lock);
    free(j->stops);
    free(j);
}

/* -- the driver's side ----------------------------------------------------------------------------------- */

void job_reserve(struct job *j)
{
    struct tern_err err;
    enum tern_status st;

    if (j->r.kind != JOB_TEXT || !generate_wants_room(&j->gen))
        return;
    pthread_mutex_lock(&j->lock);
    st = generate_reserve(&j->gen, &err);
    pthread_mutex_unlock(&j->lock);
    if (st)
        seq_fail(&j->gen.seq, &err);
}

void job_end(struct job *j, const struct tern_err *err)
{
    if (err)
        seq_fail(job_seq(j), err);
    else if (j->r.kind == JOB_EMBED)
        seq_finish(&j->embed.seq);
    else
        generate_stop(&j->gen, GENERATE_INTERRUPTED);
}

static double ms_between(uint64_t from_ns, uint64_t to_ns)
{
    return to_ns > from_ns ? (double)(to_ns - from_ns) / 1e6 : 0;
}

/* What is the same for both kinds. */
static void fill_state(struct job_state *s, const struct job *j, const struct seq *q)
{
    const uint64_t now = tern_now_ns();

    s->started = q->t_start_ns != 0;
    s->slot = j->slot;
    s->n_cached = q->n_cached;
    if (s->started)
        s->n_prompt_done = q->n_sent < s->n_prompt && !s->shifted ? q->n_sent : s->n_prompt;
    s->queue_ms = ms_between(j->t_submit_ns, s->started ? q->t_start_ns : now);
    if (s->started)
        s->prompt_ms = ms_between(q->t_start_ns, q->t_first_ns ? q->t_first_ns : now);
    if (q->t_first_ns)
        s->answer_ms = ms_between(q->t_first_ns, q->t_last_ns);
}

static enum generate_end end_of_embed(const struct seq *q, bool cancelled)
{
    if (q->state != SEQ_ENDED)
        return GENERATE_RUNNING;
    if (q->failed)
        return GENERATE_ERROR;
    return cancelled ? GENERATE_INTERRUPTED : GENERATE_STOP;
}

/* A reader may have been stopped while it looks: unless it must not wait any longer, what there is goes out
 * with the next turn. */
static bool lock_to_publish(struct job *j, bool must)
{
    if (!must)
        return pthread_mutex_trylock(&j->lock) == 0;
    pthread_mutex_lock(&j->lock);
    return true;
}

enum job_shown job_publish(struct job *j)
{
    const struct seq *q = job_seq(j);
    const bool text = j->r.kind == JOB_TEXT;
    struct job_state s = j->state; /* only we write it */
    size_t n_text = 0;
    uint32_t n_tokens = 0;
    bool news;

    if (text) {
        s.ended = generate_ended(&j->gen);
        s.end = j->gen.end;
        s.stop = j->gen.stop;
        s.n_tokens = j->gen.n_tokens;
        s.shifted = j->gen.n_shifts > 0;
        n_text = j->gen.n_ready;
        n_tokens = generate_ready_tokens(&j->gen, j->n_tokens);
    } else {
        s.end = end_of_embed(q, atomic_load(&j->cancelled));
        s.ended = s.end != GENERATE_RUNNING;
        if (s.end == GENERATE_STOP) {
            s.embedding = j->embed.out;
            s.n_rows = j->embed.n_rows;
        }
    }
    fill_state(&s, j, q);
    if (s.end == GENERATE_ERROR)
        s.err = q->err;
    news = s.ended || (!j->r.at_end && (n_text != j->n_text || n_tokens != j->n_tokens));
    if (!lock_to_publish(j, s.ended))
        return news ? JOB_LATER : JOB_SHOWN;
    j->state = s;
    j->n_text = n_text;
    j->n_tokens = n_tokens;
    pthread_mutex_unlock(&j->lock);
    if (news)
        pthread_cond_signal(&j->changed); /* we are still one of its holders */
    return s.ended ? JOB_ENDED : JOB_SHOWN;
}

/* -- the reader's side ----------------------------------------------------------------------------------- */

void job_wait(struct job *j, int timeout_ms, struct job_state *out)
{
    const struct timespec until = tern_deadline_in(timeout_ms > 0 ? timeout_ms : 0);
    int rc = timeout_ms > 0 ? 0 : 1;

    pthread_mutex_lock(&j->lock);
    while (!j->state.ended && rc == 0 &&
           (j->r.at_end || (j->n_text == j->taken_text && j->n_tokens == j->taken_tokens)))
        rc = pthread_cond_timedwait(&j->changed, &j->lock, &until);
    *out = j->state;
    pthread_mutex_unlock(&j->lock);
}

/* Memory for what there is; false: none. */
static bool piece_new(const struct job *j, size_t n_text, uint32_t n, struct job_piece *p)
{
    const size_t n_logprobs = j->r.gen.n_logprobs > 0 ? (size_t)j->r.gen.n_logprobs : 0;

    p->text = malloc(n_text + 1);
    p->tokens = n ? malloc(n * sizeof *p->tokens) : NULL;
    p->tops = n && n_logprobs ? malloc(n * n_logprobs * sizeof *p->tops) : NULL;
    p->n_text = n_text;
    p->n_tokens = n;
    return p->text && (!n || p->tokens) && (!n || !n_logprobs || p->tops);
}

/* With the lock held: the driver may move all of it, but changes nothing. */
static void piece_copy(const struct job *j, struct job_piece *p)
{
    const size_t n_logprobs = j->r.gen.n_logprobs > 0 ? (size_t)j->r.gen.n_logprobs : 0;

    if (p->n_text)
        memcpy(p->text, j->gen.text + j->taken_text, p->n_text);
    p->text[p->n_text] = '\0';
    if (p->n_tokens)
        memcpy(p->tokens, j->gen.tokens + j->taken_tokens, p->n_tokens * sizeof *p->tokens);
    if (p->tops)
        memcpy(p->tops, j->gen.tops + j->taken_tokens * n_logprobs,
               p->n_tokens * n_logprobs * sizeof *p->tops);
}

/* The lock is held for the copies alone, for the driver does not wait for it. */
void job_take(struct job *j, struct job_piece *out)
{
    struct job_piece p = { 0 };
    size_t n_text;
    uint32_t n_tokens;

    pthread_mutex_lock(&j->lock);
    n_text = j->n_text - j->taken_text;
    n_tokens = j->n_tokens - j->taken_tokens;
    pthread_mutex_unlock(&j->lock);
    if (piece_new(j, n_text, n_tokens, &p)) {
        pthread_mutex_lock(&j->lock);
        piece_copy(j, &p);
        pthread_mutex_unlock(&j->lock);
        j->taken_text += n_text;
        j->taken_tokens += n_tokens;
    } else {
        job_piece_free(&p);
        p.failed = true;
    }
    *out = p;
}

void job_piece_free(struct job_piece *p)
{
    free(p->text);
    free(p->tokens);
    free(p->tops);
    memset(p, 0, sizeof *p);
}

void job_cancel(struct job *j)
{
    if (!atomic_exchange(&j->cancelled, true))
        service_note_cancel(j->service);
}

void job_free(struct job **jp)
{
    struct job *j = *jp;
    bool ended;

    if (!j)
        return;
    pthread_mutex_lock(&j->lock);
    ended = j->state.ended;
    pthread_mutex_unlock(&j->lock);
    if (!ended)
        job_cancel(j);
    job_drop(j);
    *jp = NULL;
}
