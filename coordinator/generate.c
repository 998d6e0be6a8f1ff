/* SPDX-License-Identifier: Apache-2.0 */
/* One answer being made: see generate.h. */
#include "coordinator/generate.h"

#include "coordinator/grammar.h"
#include "engine/base/limits.h"
#include "engine/base/log.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* What one token and the end of the text after it may add: tern_utf8_feed's bound and tern_utf8_flush's. */
#define TOKEN_TEXT (3 * (TERN_MAX_TOKEN_BYTES + 4) + 16)

const char *generate_end_name(enum generate_end e)
{
    static const char *const names[] = { "running", "stop", "length", "context", "error", "interrupted" };

    return names[e];
}

enum tern_status generate_forbid_eog(struct sample_options *o, const struct tern_tokenizer *tok,
                                     uint32_t n_vocab, struct tern_err *err)
{
    for (uint32_t i = 0; i < n_vocab; i++) {
        if (!tern_tokenizer_is_eog(tok, (int32_t)i))
            continue;
        if (o->n_bias == SAMPLE_MAX_BIAS)
            return TERN_FAIL(err, TERN_ERR_LIMIT,
                             "--ignore-eos and --logit-bias together name more than %d tokens",
                             SAMPLE_MAX_BIAS);
        o->bias[o->n_bias++] = (struct sample_bias){ (int32_t)i, -INFINITY };
    }
    return TERN_OK;
}

/* -- text ------------------------------------------------------------------------------------------------ */

/* Where the earliest stop string begins at or after `from`, and which it is; n_text when there is none. */
static size_t find_stop(const struct generate *g, size_t from, int *which)
{
    size_t best = g->n_text;

    for (uint32_t i = 0; i < g->o->n_stops; i++) {
        size_t len = strlen(g->o->stops[i]);
        const char *hit = memmem(g->text + from, g->n_text - from, g->o->stops[i], len);

        if (hit && (size_t)(hit - g->text) < best) {
            best = (size_t)(hit - g->text);
            *which = (int)i;
        }
    }
    return best;
}

/* How many bytes at the end of the text are the beginning of a stop string. */
static size_t held_back(const struct generate *g)
{
    size_t most = 0;

    for (uint32_t i = 0; i < g->o->n_stops; i++) {
        size_t len = strlen(g->o->stops[i]) - 1;

        for (len = len < g->n_text ? len : g->n_text; len > most; len--)
            if (memcmp(g->text + g->n_text - len, g->o->stops[i], len) == 0) {
                most = len;
                break;
            }
    }
    return most;
}

/* Appends a token's bytes; true when a stop string came up, which then is cut off with what follows it. */
static bool add_text(struct generate *g, struct tern_str piece)
{
    size_t stop;
    int which = -1;

    g->n_text += tern_utf8_feed(&g->utf8, piece.ptr, piece.len, g->text + g->n_text);
    /* Nothing before n_ready can begin a stop string: it would have been held back. */
    stop = find_stop(g, g->n_ready, &which);
    if (stop < g->n_text) {
        g->stop = which;
        g->n_text = stop;
        g->n_ready = stop;
        g->utf8.n = 0;
        g->cut = true;
        return true;
    }
    g->n_ready = g->n_text - held_back(g);
    return false;
}

/* The last token's. */
static bool add_piece(struct generate *g, struct tern_str piece)
{
    bool stop = add_text(g, piece);

    g->tokens[g->n_tokens - 1].end = g->n_text;
    return stop;
}

static void end(struct generate *g, enum generate_end why)
{
    if (g->end != GENERATE_RUNNING)
        return;
    g->end = why;
    g->n_text += tern_utf8_flush(&g->utf8, g->text + g->n_text);
    g->n_ready = g->n_text;
    if (g->o->keep && g->seq.state != SEQ_ENDED)
        g->seq.held = true;
    else
        seq_finish(&g->seq);
}

/* -- tokens ---------------------------------------------------------------------------------------------- */

static void note_token(struct generate *g, int32_t id, double norm, const float *logits)
{
    struct generate_token *t = &g->tokens[g->n_tokens];

    memset(t, 0, sizeof *t);
    t->id = id;
    t->end = g->n_text;
    if (g->o->n_logprobs >= 0) {
        t->logprob = (double)logits[id] - norm;
        t->n_top = logprobs_top(logits, g->n_vocab, norm, (uint32_t)g->o->n_logprobs,
                                g->tops + (size_t)g->n_tokens * (size_t)g->o->n_logprobs);
    }
    g->n_tokens++;
}

/* The context is full: the older half of what may go goes, and the rest is computed again where it then
 * stands, behind it the token that found no room.  False when too little may go. */
static bool shift(struct generate *g, int32_t id)
{
    struct seq *q = &g->seq;

    if (!g->o->shift || q->n_ids < 2 || g->o->n_keep > q->n_ids - 2)
        return false;
    seq_shift(q, g->o->n_keep, (q->n_ids - g->o->n_keep) / 2);
    seq_extend(q, &id, 1);
    g->n_shifts++;
    return true;
}

static void want(struct seq *q, uint32_t pos, struct tern_head_want *out)
{
    struct generate *g = q->user;

    (void)pos;
    if (g->logits_out || g->grammar || g->o->n_logprobs >= 0)
        out->full = true;
    else
        sampler_want(g->sampler, q->ids, q->n_ids, out);
}

/* The tokens the grammar allows are the only ones to draw from.  TERN_END: the text is whole, and no token of
 * the vocabulary can go on or end it. */
static enum tern_status constrain(struct generate *g, struct tern_err *err)
{
    const size_t n_words = ((size_t)g->n_vocab + 63) / 64;
    const uint64_t *mask;

    if (grammar_is_done(g->grammar)) /* an empty text, then */
        return TERN_END;
    mask = grammar_mask(g->grammar);
    for (size_t i = 0; i < n_words; i++)
        if (mask[i]) {
            sampler_allow(g->sampler, mask);
            return TERN_OK;
        }
    if (grammar_is_whole(g->grammar))
        return TERN_END;
    return TERN_FAIL(err, TERN_ERR_UNSUPPORTED, "the answer cannot go on by its grammar: %s",
                     grammar_why(g->grammar));
}

/* One token more, drawn by all the rules; TERN_END as above. */
static enum tern_status draw(struct generate *g, const struct tern_head_row *row, int32_t *id,
                             struct tern_err *err)
{
    const struct seq *q = &g->seq;
    enum tern_status st = g->grammar ? constrain(g, err) : TERN_OK;

    return st ? st : sampler_pick(g->sampler, row, q->ids, q->n_ids, id, err);
}

/* Behind a token that belongs to the text.  True: nothing can follow it in the grammar. */
static bool complete(struct generate *g, int32_t id)
{
    if (g->grammar && grammar_accept(g->grammar, id))
        g->complete = grammar_is_done(g->grammar);
    return g->complete;
}

static void on_logits(struct seq *q, uint32_t pos, const struct tern_head_row *row)
{
    struct generate *g = q->user;
    const float *logits = row->logits;
    struct tern_err err;
    double norm = 0;
    enum tern_status st;
    int32_t id;

    (void)pos;
    if (g->end != GENERATE_RUNNING) /* came home after the end of a kept sequence's answer */
        return;
    if (g->o->n_predict == 0) {
        end(g, GENERATE_LENGTH);
        return;
    }
    if (g->logits_out)
        fwrite(logits, sizeof *logits, g->n_vocab, g->logits_out);
    if ((st = draw(g, row, &id, &err))) {
        g->complete = st == TERN_END;
        if (g->complete)
            end(g, GENERATE_STOP);
        else
            seq_fail(q, &err);
        return;
    }
    if (g->o->n_logprobs >= 0 && !logprobs_norm(g->kern, logits, g->n_vocab, &norm)) {
        (void)TERN_FAIL(&err, TERN_ERR_NUMERIC,
                        "the logits have no probabilities; the model file is damaged");
        seq_fail(q, &err);
        return;
    }
    note_token(g, id, norm, logits);
    if (!g->o->ignore_eos && ((g->o->end_id && id == *g->o->end_id) || tern_tokenizer_is_eog(g->tok, id)))
        end(g, GENERATE_STOP);
    else if (add_piece(g, tern_tokenizer_piece(g->tok, id, false)))
        end(g, GENERATE_STOP);
    else if (complete(g, id))
        end(g, GENERATE_STOP);
    else if (g->n_tokens >= g->o->n_predict)
        end(g, GENERATE_LENGTH);
    else if (q->n_ids < g->o->ctx)
        seq_push(q, id);
    else if (!shift(g, id))
        end(g, GENERATE_CONTEXT);
}

/* -- life ------------------------------------------------------------------------------------------------ */

static enum tern_status begin_grammar(struct generate *g, struct tern_err *err)
{
    enum tern_status st;

    if (!g->o->grammar)
        return TERN_OK;
    if ((st = grammar_state_new(g->o->grammar, g->o->grammar_vocab, &g->grammar, err)))
        return st;
    if (g->o->end_id)
        grammar_also_ends(g->grammar, *g->o->end_id);
    return TERN_OK;
}

enum tern_status generate_init(struct generate *g, const struct generate_options *o,
                               const struct tern_tokenizer *tok, const struct tern_kernels *kern,
                               uint32_t n_vocab, const int32_t *ids, uint32_t n, struct tern_err *err)
{
    uint64_t cap = o->keep ? o->ctx : (uint64_t)n + o->n_predict;
    enum tern_status st;

    memset(g, 0, sizeof *g);
    g->o = o;
    g->tok = tok;
    g->kern = kern;
    g->n_vocab = n_vocab;
    g->n_prompt = n;
    g->stop = -1;
    if ((st = seq_init(&g->seq, ids, n, cap < o->ctx ? (uint32_t)cap : o->ctx, err)))
        return st;
    g->seq.want = want;
    g->seq.on_logits = on_logits;
    g->seq.user = g;
    if ((st = sampler_new(&o->sample, kern, n_vocab, &g->sampler, err)) || (st = begin_grammar(g, err)) ||
        (st = generate_reserve(g, err)))
        generate_fini(g);
    return st;
}

void generate_fini(struct generate *g)
{
    seq_fini(&g->seq);
    sampler_free(&g->sampler);
    grammar_state_free(&g->grammar);
    free(g->text);
    free(g->tokens);
    free(g->tops);
    memset(g, 0, sizeof *g);
}

bool generate_wants_room(const struct generate *g)
{
    return g->end == GENERATE_RUNNING &&
           (g->text_cap - g->n_text < TOKEN_TEXT || g->n_tokens == g->tokens_cap);
}

enum tern_status generate_reserve(struct generate *g, struct tern_err *err)
{
    if (!generate_wants_room(g))
        return TERN_OK;
    if (g->text_cap - g->n_text < TOKEN_TEXT) {
        size_t cap = g->text_cap * 2 > 4 * TOKEN_TEXT ? g->text_cap * 2 : 4 * TOKEN_TEXT;
        char *p = realloc(g->text, cap);

        if (!p)
            return TERN_FAIL(err, TERN_ERR_MEMORY, "no memory for the text (%zu bytes)", cap);
        g->text = p;
        g->text_cap = cap;
    }
    if (g->n_tokens == g->tokens_cap) {
        uint32_t cap = g->tokens_cap ? g->tokens_cap * 2 : 256;
        struct generate_token *p = realloc(g->tokens, cap * sizeof *p);
        struct logprob *t;

        if (!p)
            return TERN_FAIL(err, TERN_ERR_MEMORY, "no memory for %u tokens", (unsigned)cap);
        g->tokens = p;
        if (g->o->n_logprobs > 0) {
            t = realloc(g->tops, (size_t)cap * (size_t)g->o->n_logprobs * sizeof *t);
            if (!t)
                return TERN_FAIL(err, TERN_ERR_MEMORY, "no memory for the log-probabilities of %u tokens",
                                 (unsigned)cap);
            g->tops = t;
        }
        g->tokens_cap = cap;
    }
    return TERN_OK;
}

void generate_stop(struct generate *g, enum generate_end why)
{
    end(g, why);
}

bool generate_ended(struct generate *g)
{
    if (g->end == GENERATE_RUNNING && g->seq.state == SEQ_ENDED)
        end(g, GENERATE_ERROR);
    return g->end != GENERATE_RUNNING;
}

struct tern_str generate_ready(struct generate *g, size_t *shown)
{
    struct tern_str s = { g->text + *shown, g->n_ready - *shown };

    *shown = g->n_ready;
    return s;
}

/* -- one answer behind the other ------------------------------------------------------------------------- */

/* How many of the tokens belong to the text. */
static uint32_t tokens_of_text(const struct generate *g)
{
    uint32_t n = g->n_tokens;

    if (g->end != GENERATE_STOP || g->complete || n == 0)
        return n;
    n--; /* the end itself, or the token that completed a stop string */
    while (g->cut && n && g->tokens[n - 1].end > g->n_text)
        n--;
    return n;
}

uint32_t generate_ready_tokens(const struct generate *g, uint32_t from)
{
    const uint32_t n = g->cut ? tokens_of_text(g) : g->n_tokens;

    while (from < n && g->tokens[from].end <= g->n_ready)
        from++;
    return from;
}

uint32_t generate_length(const struct generate *g, struct tern_str *left)
{
    const uint32_t n = tokens_of_text(g);
    const size_t printed = n ? g->tokens[n - 1].end : 0;

    *left = (struct tern_str){ "", 0 };
    if (g->cut && printed < g->n_text)
        *left = (struct tern_str){ g->text + printed, g->n_text - printed };
    return g->n_kept + g->n_prompt + n;
}

enum tern_status generate_more(struct generate *g, const int32_t *ids, uint32_t n, struct tern_err *err)
{
    struct seq *q = &g->seq;
    struct tern_str left;
    uint32_t length = generate_length(g, &left);

    TERN_BUG_IF(g->end == GENERATE_RUNNING || q->state != SEQ_LIVE);
    if (length < q->n_ids)
        seq_rewind(q, length);
    while (q->n_ids < length) /* the last one of a length was never sent */
        seq_push(q, g->tokens[q->n_ids - g->n_kept - g->n_prompt].id);
    seq_extend(q, ids, n);
    q->t_start_ns = tern_now_ns();
    q->t_first_ns = q->t_last_ns = 0;
    g->n_kept = length;
    g->n_prompt = n;
    g->n_tokens = 0;
    g->n_text = g->n_ready = 0;
    g->utf8.n = 0;
    g->end = GENERATE_RUNNING;
    g->cut = g->complete = false;
    g->stop = -1;
    if (g->grammar)
        grammar_restart(g->grammar);
    return generate_reserve(g, err);
}
