/* SPDX-License-Identifier: Apache-2.0 */
/* What the tests of services lie on: see service_bed.h. */
#include "unit/unit.h"

#include "unit/service_bed.h"

#include "coordinator/grammar.h"
#include "kernels/cpu.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MODEL TERN_SOURCE_DIR "/deploy/models/fable.gguf"

struct engine_options bed_engine;
struct service *bed_service;

int bed_set_up(void **state)
{
    struct tern_err err;

    (void)state;
    tern_cpu_set_float_mode();
    engine_options_default(&bed_engine);
    snprintf(bed_engine.model, sizeof bed_engine.model, "%s", MODEL);
    bed_engine.ctx = BED_CTX;
    bed_engine.threads = 1;
    bed_engine.threads_given = true;
    bed_engine.quiet = true;
    bed_engine.chunk = 16;
    return engine_options_finish(&bed_engine, &err);
}

/* -- requests -------------------------------------------------------------------------------------------- */

static const char *const texts[] = {
    "Once upon a time there was a fox",
    "The hare laughed at the tortoise. The tortoise said",
    "A crow sat in a tree with a piece of cheese, and a fox, who had smelled it from afar, came and said "
    "that "
    "never before had he seen a bird of such beauty; if only",
    "The lion",
};

uint32_t bed_encode(const char *text, int32_t *ids, uint32_t cap)
{
    struct tern_ids out = { 0 };

    assert_ok(session_encode(service_session(bed_service), text, strlen(text), false, &out, &unit_err));
    assert_true(out.n <= cap);
    memcpy(ids, out.ids, out.n * sizeof *ids);
    free(out.ids);
    return (uint32_t)out.n;
}

static const struct grammar *grammars[2];
static struct grammar_vocab *vocab;

void bed_make_grammars(void)
{
    static const char *const rules[] = {
        "root ::= \"The \" [a-z]{3,9} (\" and \" [a-z]{3,9})* \".\"",
        "root ::= \"{\" ([0-9] (\",\" root)?)? \"}\"",
    };
    const struct session *s = service_session(bed_service);

    assert_ok(grammar_vocab_new(s->tok, s->arch.n_vocab, &vocab, &unit_err));
    for (uint32_t i = 0; i < 2; i++) {
        struct grammar *g;

        assert_ok(grammar_parse(rules[i], strlen(rules[i]), &g, &unit_err));
        grammars[i] = g;
    }
}

void bed_free_grammars(void)
{
    grammar_drop(&grammars[0]);
    grammar_drop(&grammars[1]);
    grammar_vocab_free(&vocab);
}

/* Request number i of those whose answers are known. */
void bed_make_request(uint32_t i, int32_t *ids, struct job_request *r)
{
    memset(r, 0, sizeof *r);
    r->ids = ids;
    r->n_ids = bed_encode(texts[i % 4], ids, BED_CTX);
    r->client = i % 5;
    if (i % 6 == 5) {
        r->kind = JOB_EMBED;
        r->pooling = i % 12 == 5 ? TERN_POOL_MEAN : TERN_POOL_NONE;
        r->normalize = true;
        return;
    }
    sample_options_default(&r->gen.sample);
    r->gen.sample.temperature = i % 3 ? 0.8 : 0;
    r->gen.sample.seed = 17 * i;
    r->gen.sample.top_k = i % 4 ? 40 : 0;
    r->gen.sample.repeat_penalty = i % 5 ? 1 : 1.1;
    r->gen.n_logprobs = i % 2 ? (int)i % 4 : -1;
    r->gen.n_predict = 8 + 3 * i;
    r->no_cache = i % 7 == 0;
    r->gen.ignore_eos = i % 4 == 2;
    if (i == 8) {
        r->gen.stops[r->gen.n_stops++] = "zebra";
        r->gen.stops[r->gen.n_stops++] = "the";
    }
    if (i >= 12) {
        r->grammar = grammars[i - 12];
        r->gen.grammar_vocab = vocab;
    }
    if (i == 10) { /* goes on beyond the context */
        r->gen.n_predict = 2 * BED_CTX;
        r->gen.ignore_eos = true;
        r->shift = true;
        r->n_keep = 3;
    }
}

/* -- answers --------------------------------------------------------------------------------------------- */

void bed_answer_free(struct answer *a)
{
    free(a->text);
    free(a->tokens);
    free(a->tops);
    free(a->rows);
    memset(a, 0, sizeof *a);
}

static void append(struct answer *a, const struct job_piece *p)
{
    a->text = realloc(a->text, a->n_text + p->n_text + 1);
    a->tokens = realloc(a->tokens, (a->n_tokens + p->n_tokens + 1) * sizeof *a->tokens);
    a->tops = realloc(a->tops, (a->n_tokens + p->n_tokens + 1) * (a->n_logprobs + 1) * sizeof *a->tops);
    if (!a->text || !a->tokens || !a->tops || p->failed)
        abort();
    memcpy(a->text + a->n_text, p->text, p->n_text + 1);
    if (p->n_tokens)
        memcpy(a->tokens + a->n_tokens, p->tokens, p->n_tokens * sizeof *a->tokens);
    if (p->tops)
        memcpy(a->tops + (size_t)a->n_tokens * a->n_logprobs, p->tops,
               (size_t)p->n_tokens * a->n_logprobs * sizeof *a->tops);
    a->n_text += p->n_text;
    a->n_tokens += p->n_tokens;
    a->n_pieces++;
}

/* Reads until the end; a slow reader sleeps in between. */
void bed_drop_all(struct job *j, struct job_state *out)
{
    do {
        struct job_piece p;

        job_wait(j, BED_PATIENCE, out);
        job_take(j, &p);
        job_piece_free(&p);
    } while (!out->ended);
}

void bed_read_all(struct job *j, const struct job_request *r, unsigned slow_us, struct answer *a)
{
    const uint32_t n_embd = service_session(bed_service)->arch.n_embd;

    memset(a, 0, sizeof *a);
    a->n_logprobs = r->kind == JOB_TEXT && r->gen.n_logprobs > 0 ? (uint32_t)r->gen.n_logprobs : 0;
    do {
        struct job_piece p;

        job_wait(j, BED_PATIENCE, &a->state);
        job_take(j, &p);
        append(a, &p);
        job_piece_free(&p);
        if (slow_us)
            usleep(slow_us);
    } while (!a->state.ended);
    if (a->state.embedding) {
        a->n_rows = a->state.n_rows;
        a->rows = malloc(a->n_rows * n_embd * sizeof *a->rows);
        if (!a->rows)
            abort();
        memcpy(a->rows, a->state.embedding, a->n_rows * n_embd * sizeof *a->rows);
        a->state.embedding = NULL;
    }
}

/* Cmocka's assertions belong to the main thread: a sentence, or NULL. */
const char *bed_difference(const struct answer *a, const struct answer *b)
{
    const size_t row = service_session(bed_service)->arch.n_embd * sizeof(float);

    if (a->state.end != b->state.end || a->state.stop != b->state.stop ||
        a->state.shifted != b->state.shifted)
        return "the end";
    if (a->n_text != b->n_text || (a->n_text && memcmp(a->text, b->text, a->n_text) != 0))
        return "the text";
    if (a->n_tokens != b->n_tokens || a->state.n_tokens != b->state.n_tokens)
        return "the number of tokens";
    for (uint32_t i = 0; i < a->n_tokens; i++) {
        const struct generate_token *x = &a->tokens[i], *y = &b->tokens[i];

        if (x->id != y->id || x->end != y->end || x->n_top != y->n_top ||
            memcmp(&x->logprob, &y->logprob, sizeof x->logprob) != 0)
            return "a token";
        for (uint32_t k = 0; k < x->n_top; k++)
            if (a->tops[(size_t)i * a->n_logprobs + k].id != b->tops[(size_t)i * b->n_logprobs + k].id ||
                memcmp(&a->tops[(size_t)i * a->n_logprobs + k].value,
                       &b->tops[(size_t)i * b->n_logprobs + k].value, sizeof(double)) != 0)
                return "a log-probability";
    }
    if (a->n_rows != b->n_rows || (a->n_rows && memcmp(a->rows, b->rows, a->n_rows * row) != 0))
        return "an embedding";
    return NULL;
}

void bed_ask_alone(uint32_t i, struct answer *a)
{
    int32_t ids[BED_CTX];
    struct job_request r;
    struct job *j;

    bed_make_request(i, ids, &r);
    assert_ok(service_submit(bed_service, &r, &j, &unit_err));
    bed_read_all(j, &r, 0, a);
    job_free(&j);
}

/* -- the service ----------------------------------------------------------------------------------------- */

void bed_open_service(uint32_t parallel, uint32_t max_queue)
{
    struct service_options o = {
        .engine = &bed_engine, .parallel = parallel, .max_queue = max_queue, .n_prefixes = parallel + 2
    };

    assert_ok(service_open(&o, &bed_service, &unit_err));
}

/* Nothing is under way any more: jobs, steps, pages. */
void bed_check_idle(void)
{
    struct snapshot *s = calloc(1, sizeof *s);

    assert_non_null(s);
    for (int i = 0; i < 6000; i++) {
        service_snapshot(bed_service, s);
        if (s->n_running + s->n_waiting + s->sched.n_in_flight == 0 &&
            s->jobs_ended + s->jobs_cancelled + s->jobs_failed == s->jobs)
            break;
        usleep(10000);
    }
    assert_int_equal(s->n_running + s->n_waiting, 0);
    assert_int_equal(s->jobs_ended + s->jobs_cancelled + s->jobs_failed, s->jobs);
    assert_int_equal(s->sched.pages_free + s->sched.pages_cached, s->sched.pages);
    free(s);
}
