/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A service in company: whoever asks, and however many do, each gets what he would get alone, to the bit; and
 * what was cancelled, refused or never read leaves nothing behind.
 */
#include "unit/unit.h"

#include "coordinator/grammar.h"
#include "coordinator/serve/service.h"
#include "coordinator/serve/snapshot_json.h"
#include "engine/base/log.h"
#include "kernels/cpu.h"

#include <dirent.h>
#include <jansson.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MODEL     TERN_SOURCE_DIR "/deploy/models/fable.gguf"
#define N_KINDS   14
#define N_THREADS 16
/* Requests of each thread. */
#if defined(__SANITIZE_THREAD__)
#define N_EACH 3
#elif defined(__SANITIZE_ADDRESS__)
#define N_EACH 6
#else
#define N_EACH 40
#endif
#define CTX      128
#define PATIENCE 120000 /* ms */

static struct engine_options engine;
static struct service *service;

/* -- requests -------------------------------------------------------------------------------------------- */

static const char *const texts[] = {
    "Once upon a time there was a fox",
    "The hare laughed at the tortoise. The tortoise said",
    "A crow sat in a tree with a piece of cheese, and a fox, who had smelled it from afar, came and said "
    "that "
    "never before had he seen a bird of such beauty; if only",
    "The lion",
};

static uint32_t encode(const char *text, int32_t *ids, uint32_t cap)
{
    struct tern_ids out = { 0 };

    assert_ok(session_encode(service_session(service), text, strlen(text), false, &out, &unit_err));
    assert_true(out.n <= cap);
    memcpy(ids, out.ids, out.n * sizeof *ids);
    free(out.ids);
    return (uint32_t)out.n;
}

static const struct grammar *grammars[2];
static struct grammar_vocab *vocab;

static void make_grammars(void)
{
    static const char *const rules[] = {
        "root ::= \"The \" [a-z]{3,9} (\" and \" [a-z]{3,9})* \".\"",
        "root ::= \"{\" ([0-9] (\",\" root)?)? \"}\"",
    };
    const struct session *s = service_session(service);

    assert_ok(grammar_vocab_new(s->tok, s->arch.n_vocab, &vocab, &unit_err));
    for (uint32_t i = 0; i < 2; i++) {
        struct grammar *g;

        assert_ok(grammar_parse(rules[i], strlen(rules[i]), &g, &unit_err));
        grammars[i] = g;
    }
}

static void free_grammars(void)
{
    grammar_drop(&grammars[0]);
    grammar_drop(&grammars[1]);
    grammar_vocab_free(&vocab);
}

/* Request number i of those whose answers are known. */
static void make_request(uint32_t i, int32_t *ids, struct job_request *r)
{
    memset(r, 0, sizeof *r);
    r->ids = ids;
    r->n_ids = encode(texts[i % 4], ids, CTX);
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
        r->gen.n_predict = 2 * CTX;
        r->gen.ignore_eos = true;
        r->shift = true;
        r->n_keep = 3;
    }
}

/* -- answers --------------------------------------------------------------------------------------------- */

struct answer {
    char *text;
    size_t n_text;
    struct generate_token *tokens;
    struct logprob *tops;
    uint32_t n_tokens, n_logprobs, n_pieces;
    float *rows;
    size_t n_rows;
    struct job_state state;
};

static void answer_free(struct answer *a)
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
static void read_all(struct job *j, const struct job_request *r, unsigned slow_us, struct answer *a)
{
    const uint32_t n_embd = service_session(service)->arch.n_embd;

    memset(a, 0, sizeof *a);
    a->n_logprobs = r->kind == JOB_TEXT && r->gen.n_logprobs > 0 ? (uint32_t)r->gen.n_logprobs : 0;
    do {
        struct job_piece p;

        job_wait(j, PATIENCE, &a->state);
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
static const char *difference(const struct answer *a, const struct answer *b)
{
    const size_t row = service_session(service)->arch.n_embd * sizeof(float);

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

static void ask_alone(uint32_t i, struct answer *a)
{
    int32_t ids[CTX];
    struct job_request r;
    struct job *j;

    make_request(i, ids, &r);
    assert_ok(service_submit(service, &r, &j, &unit_err));
    read_all(j, &r, 0, a);
    job_free(&j);
}

/* -- the service ----------------------------------------------------------------------------------------- */

static void open_service(uint32_t parallel, uint32_t max_queue)
{
    struct service_options o = {
        .engine = &engine, .parallel = parallel, .max_queue = max_queue, .n_prefixes = parallel + 2
    };

    assert_ok(service_open(&o, &service, &unit_err));
}

/* Nothing is under way any more: jobs, steps, pages. */
static void check_idle(void)
{
    struct snapshot *s = calloc(1, sizeof *s);

    assert_non_null(s);
    for (int i = 0; i < 500; i++) {
        service_snapshot(service, s);
        if (s->n_running + s->n_waiting + s->sched.n_in_flight == 0 && s->jobs_ended == s->jobs)
            break;
        usleep(10000);
    }
    assert_int_equal(s->n_running + s->n_waiting, 0);
    assert_int_equal(s->jobs_ended, s->jobs);
    assert_int_equal(s->sched.pages_free + s->sched.pages_cached, s->sched.pages);
    free(s);
}

/* -- tests ----------------------------------------------------------------------------------------------- */

static struct answer known[N_KINDS];

struct client {
    pthread_t thread;
    uint64_t random;
    uint32_t n_cancelled, n_refused, n_same;
    const char *wrong;
    uint32_t wrong_kind;
};

/* Waits for some of the answer and goes. */
static void leave_early(struct client *c, struct job **j)
{
    struct job_state state;

    if (unit_random(&c->random) % 2)
        usleep((unsigned)(unit_random(&c->random) % 20000));
    else
        job_wait(*j, (int)(unit_random(&c->random) % 50), &state);
    if (unit_random(&c->random) % 2)
        job_cancel(*j);
    job_free(j);
    c->n_cancelled++;
}

static void *client_main(void *user)
{
    struct client *c = user;

    for (uint32_t k = 0; k < N_EACH && !c->wrong; k++) {
        const uint32_t kind = (uint32_t)(unit_random(&c->random) % N_KINDS);
        int32_t ids[CTX];
        struct job_request r;
        struct answer a;
        struct tern_err err;
        struct job *j;

        make_request(kind, ids, &r);
        while (service_submit(service, &r, &j, &err) == TERN_ERR_BUSY) {
            c->n_refused++;
            usleep(5000);
        }
        if (unit_random(&c->random) % 4 == 0) {
            leave_early(c, &j);
            continue;
        }
        read_all(j, &r, unit_random(&c->random) % 4 ? 0 : 3000, &a);
        job_free(&j);
        c->wrong = difference(&a, &known[kind]);
        c->wrong_kind = kind;
        c->n_same++;
        answer_free(&a);
    }
    return NULL;
}

/* N_THREADS clients at a service that is open. */
static void keep_company(void)
{
    struct client clients[N_THREADS] = { { 0 } };
    uint32_t same = 0, refused = 0;

    for (uint32_t i = 0; i < N_THREADS; i++) {
        clients[i].random = 88172645463325252u + i * 1000003u;
        assert_int_equal(pthread_create(&clients[i].thread, NULL, client_main, &clients[i]), 0);
    }
    for (uint32_t i = 0; i < N_THREADS; i++)
        pthread_join(clients[i].thread, NULL);
    for (uint32_t i = 0; i < N_THREADS; i++) {
        if (clients[i].wrong)
            fail_msg("request of kind %u: %s is another in company", (unsigned)clients[i].wrong_kind,
                     clients[i].wrong);
        same += clients[i].n_same;
        refused += clients[i].n_refused;
    }
    assert_true(same > N_THREADS * N_EACH / 2);
    assert_true(refused > 0);
    check_idle();
    service_close(&service);
}

/* Alone in this process, in company here, and in company on workers. */
static void test_company(void **state)
{
    (void)state;
    open_service(5, 6);
    make_grammars();
    for (uint32_t i = 0; i < N_KINDS; i++) {
        ask_alone(i, &known[i]);
        assert_int_not_equal(known[i].state.end, GENERATE_ERROR);
    }
    assert_true(known[10].state.shifted);
    assert_true(known[12].n_text > 4 && memcmp(known[12].text, "The ", 4) == 0);
    assert_true(known[13].n_text > 0 && known[13].text[0] == '{');
    assert_int_equal(known[10].state.n_tokens, 2 * CTX);
    check_idle();
    keep_company();
    free_grammars();
    engine.local = 3;
    open_service(8, 4);
    make_grammars();
    keep_company();
    free_grammars();
    engine.local = 0;
    for (uint32_t i = 0; i < N_KINDS; i++)
        answer_free(&known[i]);
}

/* What follows a shift is what follows the shortened text, asked for by itself. */
static void test_shift(void **state)
{
    int32_t ids[CTX + 8];
    const uint32_t n_keep = 4, n_more = 10;
    uint32_t n, n_drop;
    struct job_request r = { 0 };
    struct answer a, b;
    struct job *j;

    (void)state;
    open_service(2, 2);
    n = encode(texts[0], ids, CTX);
    r.ids = ids;
    r.n_ids = n;
    sample_options_default(&r.gen.sample);
    r.gen.sample.temperature = 0;
    r.gen.n_logprobs = 2;
    r.gen.ignore_eos = true;
    r.gen.n_predict = CTX - n + 1 + n_more;
    r.shift = true;
    r.n_keep = n_keep;
    assert_ok(service_submit(service, &r, &j, &unit_err));
    read_all(j, &r, 0, &a);
    job_free(&j);
    assert_int_equal(a.state.end, GENERATE_LENGTH);
    assert_true(a.state.shifted);
    /* The text so far: CTX ids, and the one behind them that found no room. */
    for (uint32_t i = 0; i <= CTX - n; i++)
        ids[n + i] = a.tokens[i].id;
    n_drop = (CTX - n_keep) / 2;
    memmove(ids + n_keep, ids + n_keep + n_drop, (CTX + 1 - n_keep - n_drop) * sizeof *ids);
    r.n_ids = CTX + 1 - n_drop;
    r.shift = false;
    r.gen.n_predict = n_more;
    assert_ok(service_submit(service, &r, &j, &unit_err));
    read_all(j, &r, 0, &b);
    job_free(&j);
    assert_int_equal(b.n_tokens, n_more);
    for (uint32_t i = 0; i < n_more; i++) {
        assert_int_equal(b.tokens[i].id, a.tokens[CTX - n + 1 + i].id);
        assert_memory_equal(&b.tokens[i].logprob, &a.tokens[CTX - n + 1 + i].logprob, sizeof(double));
    }
    answer_free(&a);
    answer_free(&b);
    /* Without it the answer ends. */
    r.n_ids = n = encode(texts[0], ids, CTX);
    r.gen.n_predict = UINT32_MAX;
    assert_ok(service_submit(service, &r, &j, &unit_err));
    read_all(j, &r, 0, &a);
    job_free(&j);
    assert_int_equal(a.state.end, GENERATE_CONTEXT);
    assert_int_equal(a.n_tokens, CTX - n + 1);
    answer_free(&a);
    check_idle();
    service_close(&service);
}

/* More than fits is refused at once, what waits is served, what can never run is told so. */
static void test_refused(void **state)
{
    struct job *jobs[3];
    int32_t ids[CTX + 1];
    struct job_request r, bad;
    struct answer a;
    struct job *j = NULL;

    (void)state;
    open_service(1, 2);
    make_request(2, ids, &r);
    r.gen.n_predict = 60;
    for (uint32_t i = 0; i < 3; i++)
        assert_ok(service_submit(service, &r, &jobs[i], &unit_err));
    assert_int_equal(service_submit(service, &r, &j, &unit_err), TERN_ERR_BUSY);
    assert_null(j);
    job_free(&jobs[1]);
    read_all(jobs[2], &r, 0, &a);
    assert_int_equal(a.state.end, GENERATE_LENGTH);
    assert_true(a.state.queue_ms > 0 && a.state.prompt_ms > 0 && a.state.answer_ms > 0);
    answer_free(&a);
    job_free(&jobs[2]);
    job_free(&jobs[0]);
    bad = r;
    bad.n_ids = CTX + 1;
    for (uint32_t i = 0; i <= CTX; i++)
        ids[i] = 1;
    assert_int_equal(service_submit(service, &bad, &j, &unit_err), TERN_ERR_LIMIT);
    bad.n_ids = 0;
    assert_int_equal(service_submit(service, &bad, &j, &unit_err), TERN_ERR_USAGE);
    bad.n_ids = 1;
    ids[0] = (int32_t)service_session(service)->arch.n_vocab;
    assert_int_equal(service_submit(service, &bad, &j, &unit_err), TERN_ERR_USAGE);
    ids[0] = -1;
    assert_int_equal(service_submit(service, &bad, &j, &unit_err), TERN_ERR_USAGE);
    assert_null(j);
    check_idle();
    service_close(&service);
}

/* A cancelled answer stops where it is, also one that waits. */
static void test_cancel(void **state)
{
    struct job *running, *waiting;
    struct job_state st;
    int32_t ids[CTX];
    struct job_request r;
    struct snapshot *s = calloc(1, sizeof *s);
    uint64_t t0;

    (void)state;
    assert_non_null(s);
    open_service(1, 4);
    make_request(10, ids, &r);
    r.gen.n_predict = UINT32_MAX; /* with shift: it never ends */
    assert_ok(service_submit(service, &r, &running, &unit_err));
    assert_ok(service_submit(service, &r, &waiting, &unit_err));
    job_wait(running, PATIENCE, &st);
    assert_false(st.ended);
    job_wait(waiting, 0, &st);
    assert_false(st.started);
    t0 = tern_now_ms();
    job_cancel(waiting);
    job_cancel(running);
    do {
        struct job_piece p;

        job_wait(running, PATIENCE, &st);
        job_take(running, &p);
        job_piece_free(&p);
    } while (!st.ended);
    assert_int_equal(st.end, GENERATE_INTERRUPTED);
    job_wait(waiting, PATIENCE, &st);
    assert_true(st.ended && st.end == GENERATE_INTERRUPTED && !st.started);
    assert_true(tern_now_ms() - t0 < 5000);
    job_free(&running);
    job_free(&waiting);
    check_idle();
    service_snapshot(service, s);
    assert_int_equal(s->jobs, 2);
    assert_int_equal(s->jobs_cancelled, 2);
    free(s);
    service_close(&service);
}

/* The picture as JSON, with the steps behind one. */
static void check_json(uint64_t since)
{
    static const char *const keys[] = { "version", "uptime_s",    "now_us",  "ready", "why",
                                        "model",   "coordinator", "stages",  "hops",  "scheduler",
                                        "rates",   "totals",      "latency", "slots" };
    char *text = NULL;
    size_t len = 0;
    json_t *o, *steps;

    assert_ok(snapshot_json(service, true, since, &text, &len, &unit_err));
    assert_int_equal(strlen(text), len);
    assert_null(strchr(text, '\n'));
    o = json_loads(text, 0, NULL);
    assert_non_null(o);
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++)
        assert_non_null(json_object_get(o, keys[i]));
    assert_int_equal(json_array_size(json_object_get(o, "stages")), 1);
    assert_int_equal(json_array_size(json_object_get(o, "hops")), 2);
    assert_true(json_is_null(json_object_get(o, "why")));
    steps = json_object_get(o, "steps");
    assert_true(json_array_size(steps) >= 1);
    assert_int_equal(json_integer_value(json_object_get(json_array_get(steps, 0), "n")), since + 1);
    json_decref(o);
    free(text);
    assert_ok(snapshot_json(service, false, 0, &text, &len, &unit_err));
    assert_null(strstr(text, "\"steps\":["));
    free(text);
}

/* What is told of a service that is at work. */
static void test_snapshot(void **state)
{
    struct snapshot *s = calloc(1, sizeof *s);
    struct snapshot_step *steps = calloc(2000, sizeof *steps);
    struct snapshot_slot slots[4];
    struct job_request r;
    struct job_state st;
    int32_t ids[CTX];
    struct job *j;
    uint32_t n;

    (void)state;
    assert_non_null(s);
    assert_non_null(steps);
    open_service(2, 2);
    make_request(10, ids, &r);
    r.gen.n_predict = UINT32_MAX;
    assert_ok(service_submit(service, &r, &j, &unit_err));
    for (uint32_t i = 0; i < 20; i++) {
        struct job_piece p;

        job_wait(j, PATIENCE, &st);
        job_take(j, &p);
        job_piece_free(&p);
    }
    n = service_slots(service, slots, 4);
    assert_int_equal(n, 1);
    assert_int_equal(slots[0].job, 1);
    assert_int_equal(slots[0].n_prompt, r.n_ids);
    assert_int_equal(slots[0].n_prompt_done, r.n_ids);
    assert_true(slots[0].n_tokens > 1 && !slots[0].prompting);
    service_snapshot(service, s);
    assert_true(s->ready);
    assert_int_equal(s->n_stages, 1);
    assert_int_equal(s->n_running, 1);
    assert_int_equal(s->n_waiting, 0);
    assert_true(s->steps > 1 && s->answer_tokens > 1 && s->answer_per_s > 0);
    assert_int_equal(s->prompt_tokens, r.n_ids);
    assert_true(s->stages[0].ms_per_step > 0 && s->stages[0].idle_share >= 0);
    assert_true(s->first_token.n == 1 && s->first_token_last.p50_us > 0);
    assert_true(s->between_tokens.n > 0 && s->between_tokens_last.p99_us >= s->between_tokens_last.p50_us);
    n = service_traces(service, 0, steps, 2000);
    assert_true(n > 1);
    for (uint32_t i = 1; i < n; i++)
        assert_int_equal(steps[i].number, steps[i - 1].number + 1);
    assert_int_equal(service_traces(service, steps[n - 1].number - 1, steps, 1), 1);
    job_free(&j);
    check_idle();
    check_json(steps[n - 2].number);
    free(steps);
    free(s);
    service_close(&service);
}

/* Processes that are ours: pids [cap], how many. */
static uint32_t children(pid_t *pids, uint32_t cap)
{
    char path[64], line[256];
    uint32_t n = 0;
    DIR *d = opendir("/proc/self/task");
    struct dirent *e;

    assert_non_null(d);
    while ((e = readdir(d)) != NULL) {
        FILE *f;
        int pid;

        (void)snprintf(path, sizeof path, "/proc/self/task/%.20s/children", e->d_name);
        if (e->d_name[0] == '.' || (f = fopen(path, "r")) == NULL)
            continue;
        if (fgets(line, sizeof line, f))
            for (char *at = line; n < cap && sscanf(at, "%d", &pid) == 1; at = strchr(at, ' ') + 1)
                pids[n++] = pid;
        fclose(f);
    }
    closedir(d);
    return n;
}

/* A worker dies: the jobs of that moment fail, naming it, and a little later there is a pipeline again that
 * says the same. */
static void test_broken(void **state)
{
    struct snapshot *s = calloc(1, sizeof *s);
    struct job *running, *waiting;
    struct job_request r;
    struct answer before, after;
    struct job_state st;
    int32_t ids[CTX];
    pid_t pids[8];

    (void)state;
    assert_non_null(s);
    engine.local = 2;
    open_service(1, 4);
    ask_alone(3, &before);
    assert_int_equal(before.state.end, GENERATE_LENGTH);
    make_request(10, ids, &r);
    r.gen.n_predict = UINT32_MAX;
    assert_ok(service_submit(service, &r, &running, &unit_err));
    assert_ok(service_submit(service, &r, &waiting, &unit_err));
    job_wait(running, PATIENCE, &st);
    assert_int_equal(children(pids, 8), 2);
    assert_int_equal(kill(pids[0], SIGKILL), 0);
    do {
        struct job_piece p;

        job_wait(running, PATIENCE, &st);
        job_take(running, &p);
        job_piece_free(&p);
    } while (!st.ended);
    assert_int_equal(st.end, GENERATE_ERROR);
    assert_true(st.err.status == TERN_ERR_PEER && (strstr(st.err.text, "w1") || strstr(st.err.text, "w2")));
    job_wait(waiting, PATIENCE, &st);
    assert_true(st.ended && st.end == GENERATE_ERROR);
    job_free(&running);
    job_free(&waiting);
    assert_int_equal(service_submit(service, &r, &running, &unit_err), TERN_ERR_PEER);
    service_snapshot(service, s);
    assert_false(s->ready);
    assert_non_null(strstr(s->why, "w"));
    for (int i = 0; i < 6000 && !service_ready(service, NULL); i++)
        usleep(10000);
    ask_alone(3, &after);
    assert_null(difference(&before, &after));
    assert_int_equal(children(pids, 8), 2);
    /* Clocks are compared by heartbeats, which come by and by. */
    for (int i = 0; i < 500; i++) {
        service_snapshot(service, s);
        if (s->hops[1].latency.n)
            break;
        answer_free(&after);
        ask_alone(3, &after);
    }
    assert_true(s->ready);
    assert_int_equal(s->reopened, 1);
    assert_int_equal(s->jobs_failed, 2);
    assert_true(s->steps > s->sched.steps && s->sched.steps > 0);
    assert_int_equal(s->n_stages, 2);
    for (uint32_t i = 0; i < 3; i++) {
        assert_true(s->hops[i].bytes > 0 && s->hops[i].latency.n > 0);
        assert_true(s->hops[i].p99_us >= s->hops[i].p50_us);
    }
    assert_true(s->stages[1].live.memory_bytes > 0 && *s->stages[1].live.endpoint);
    check_idle();
    service_close(&service);
    assert_int_equal(children(pids, 8), 0);
    engine.local = 0;
    answer_free(&before);
    answer_free(&after);
    free(s);
}

static int set_up(void **state)
{
    struct tern_err err;

    (void)state;
    tern_cpu_set_float_mode();
    engine_options_default(&engine);
    snprintf(engine.model, sizeof engine.model, "%s", MODEL);
    engine.ctx = CTX;
    engine.threads = 1;
    engine.threads_given = true;
    engine.quiet = true;
    engine.chunk = 16;
    return engine_options_finish(&engine, &err);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_refused),  cmocka_unit_test(test_cancel), cmocka_unit_test(test_shift),
        cmocka_unit_test(test_snapshot), cmocka_unit_test(test_broken), cmocka_unit_test(test_company),
    };

    return cmocka_run_group_tests(tests, set_up, NULL);
}
