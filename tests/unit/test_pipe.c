/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The pipelines under a scripted workload: in-process and over 1, 2, 3 and 6 child processes, even and
 * uneven, the same bytes come back for every boundary format; and what is said when a worker dies, is
 * stopped, cannot be reached or has another model.
 */
#include "coordinator/local_workers.h"
#include "unit/pipe_world.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define MAX_ROWS         320u
#define COORDINATOR_FLAG "--coordinator"
#define TRIES            3 /* of what is measured: other programs may have the processors */

static int open_world(void **state)
{
    (void)state;
    world_begin(TERN_LOG_WARN, tern_cpu_detect(), 2);
    return 0;
}

static struct pipe_options options(enum tern_boundary boundary)
{
    return (struct pipe_options){
        .gguf = world.gguf,
        .arch = &world.arch,
        .kern = &world.kern,
        .pool = world.pool,
        .boundary = boundary,
        .n_pages = 32,
        .n_slots = 4,
        .max_positions = 512,
        .max_rows = MAX_ROWS,
        .dead_after_ms = 3000,
        .join_timeout_ms = 20000,
        .quiet = true,
    };
}

/* -- the workload --------------------------------------------------------------------------------------- */

struct script_step {
    struct tern_slot_op ops[2];
    struct tern_run runs[2];
};

/* Prompts of one and of several parts, decoding, a fork within a page, a rewind, a reused slot, an op
 * without rows, and two sequences that must fail: a wrong position and a wrong generation. */
static const struct script_step script[] = {
    { .ops = { { TERN_OP_OPEN, 0, 1 } }, .runs = { { 0, 1, 0, 7, 1 } } },
    { .ops = { { TERN_OP_OPEN, 1, 1 } }, .runs = { { 0, 1, 7, 1, 1 }, { 1, 1, 0, 40, 2 } } },
    { .runs = { { 0, 1, 8, 1, 1 }, { 1, 1, 40, 1, 1 } } },
    { .runs = { { 1, 1, 41, 1, 1 }, { 0, 1, 9, 1, 1 } } },
    { .ops = { { TERN_OP_FORK, 2, 1, 35, 1, 1 } }, .runs = { { 2, 1, 35, 3, 3 } } },
    { .ops = { { TERN_OP_REWIND, 0, 1, 5 } }, .runs = { { 0, 1, 5, 2, 2 }, { 2, 1, 38, 1, 0 } } },
    { .ops = { { TERN_OP_FREE, 1, 1 } } },
    { .ops = { { TERN_OP_OPEN, 1, 2 } }, .runs = { { 1, 2, 0, 300, 300 } } },
    { .runs = { { 0, 1, 99, 1, 1 }, { 1, 2, 300, 1, 1 } } },
    { .runs = { { 2, 7, 39, 2, 1 }, { 1, 2, 301, 1, 1 } } },
};
#define N_SCRIPT (sizeof script / sizeof script[0])

/* The row of a sequence's position: something like a residual stream, with one large channel. */
static void make_row(uint32_t slot, uint32_t pos, float *x)
{
    uint64_t rng = (uint64_t)slot * 1000003 + pos * 7919 + 12345;

    for (uint32_t i = 0; i < world.arch.n_embd; i++)
        x[i] = (float)((int64_t)(unit_random(&rng) % 2001) - 1000) / 1000.0f * (i == 5 ? 20.0f : 1.0f);
}

static void fill_step(enum tern_boundary boundary, const struct script_step *from, struct tern_step *s)
{
    float *x = malloc(world.arch.n_embd * sizeof *x);

    assert_non_null(x);
    for (int i = 0; i < 2 && from->ops[i].kind; i++)
        s->ops[s->n_ops++] = from->ops[i];
    for (int i = 0; i < 2 && from->runs[i].n; i++) {
        const struct tern_run *r = &from->runs[i];

        s->runs[s->n_runs++] = *r;
        for (uint32_t j = 0; j < r->n; j++, s->n_rows++) {
            make_row(r->slot, r->pos + j, x);
            tern_boundary_encode(boundary, &world.kern, x, world.arch.n_embd,
                                 s->payload + (size_t)s->n_rows * s->row_bytes);
        }
    }
    free(x);
}

/* All that came back, one result after another. */
struct record {
    uint8_t *bytes;
    size_t n;
};

static void record_add(struct record *r, const void *bytes, size_t n)
{
    uint8_t *more = realloc(r->bytes, r->n + n + 1);

    assert_non_null(more);
    r->bytes = more;
    memcpy(r->bytes + r->n, bytes, n);
    r->n += n;
}

static void take_result(struct pipe *p, size_t i, struct record *r)
{
    struct tern_step *s = NULL;
    uint32_t wanted = 0;

    assert_ok(p->recv(p, 60000, &s, &unit_err));
    assert_int_equal(s->step, i + 1);
    assert_ptr_equal(s->user, &script[i]);
    assert_int_equal(s->n_times, p->n_stages);
    for (uint32_t k = 0; k < s->n_runs; k++) {
        assert_memory_equal(&s->runs[k], &script[i].runs[k], sizeof s->runs[k]);
        wanted += s->runs[k].n_want;
    }
    assert_int_equal(s->n_rows, wanted);
    record_add(r, s->payload, (size_t)s->n_rows * s->row_bytes);
    record_add(r, &s->n_failed, sizeof s->n_failed);
    for (uint32_t k = 0; k < s->n_failed; k++)
        record_add(r, &s->failed[k], offsetof(struct tern_failed, where));
    p->give(p, s);
}

static void run_script(struct pipe *p, enum tern_boundary boundary, struct record *r)
{
    size_t sent = 0, got = 0;

    while (got < N_SCRIPT) {
        struct tern_step *s;

        while (sent < N_SCRIPT && (s = p->take(p)) != NULL) {
            assert_int_equal(s->row_bytes, p->row_bytes);
            fill_step(boundary, &script[sent], s);
            s->user = (void *)(uintptr_t)&script[sent];
            sent++;
            assert_ok(p->send(p, s, &unit_err));
        }
        assert_true(sent - got <= p->max_in_flight);
        take_result(p, got++, r);
    }
}

/* -- cluster in child processes ------------------------------------------------------------------------- */

struct local_cluster {
    struct local_workers *workers;
    struct cluster_spec spec;
    struct tern_key key;
    struct pipe *pipe;
};

static void start_workers(struct local_cluster *c, uint32_t n, const uint32_t *split, const char *model)
{
    struct local_workers_options lo = {
        .n = n, .split = split, .model_path = model, .threads = 1, .layout = "1.6bit"
    };

    memset(c, 0, sizeof *c);
    assert_ok(local_workers_start(&lo, &c->workers, &c->spec, &c->key, &unit_err));
}

static void open_cluster(struct local_cluster *c, uint32_t n, const uint32_t *split,
                         enum tern_boundary boundary)
{
    struct pipe_options o = options(boundary);

    start_workers(c, n, split, MODEL);
    assert_ok(pipe_remote_open(&o, &c->spec, &c->key, &c->pipe, &unit_err));
}

static void close_cluster(struct local_cluster *c)
{
    if (c->pipe)
        c->pipe->close(c->pipe);
    local_workers_stop(&c->workers);
    tern_key_wipe(&c->key);
}

/* -- the same bytes ------------------------------------------------------------------------------------- */

static void run_local(enum tern_boundary boundary, struct record *r)
{
    struct pipe_options o = options(boundary);
    struct pipe *p = NULL;

    assert_ok(pipe_local_open(&o, &p, &unit_err));
    assert_int_equal(p->n_stages, 1);
    assert_int_equal(p->stages[0].last, world.arch.n_layers);
    assert_true(p->stages[0].weight_bytes > 0 && p->stages[0].kv_bytes > 0);
    run_script(p, boundary, r);
    p->close(p);
}

static void check_cut(uint32_t n, const uint32_t *split, enum tern_boundary boundary,
                      const struct record *want)
{
    struct local_cluster c;
    struct record got = { 0 };
    uint64_t weights = 0;

    open_cluster(&c, n, split, boundary);
    assert_int_equal(c.pipe->n_stages, n);
    for (uint32_t i = 0; i < n; i++) {
        weights += c.pipe->stages[i].weight_bytes;
        if (split)
            assert_int_equal(c.pipe->stages[i].last - c.pipe->stages[i].first, split[i]);
        assert_string_equal(c.pipe->stages[i].cpu, tern_cpu_name(world.kern.level));
        assert_int_equal(c.pipe->stages[i].threads, 1);
    }
    assert_true(weights > 0);
    run_script(c.pipe, boundary, &got);
    assert_int_equal(got.n, want->n);
    assert_memory_equal(got.bytes, want->bytes, want->n);
    free(got.bytes);
    close_cluster(&c);
}

static void test_cuts_give_the_same_bytes(void **state)
{
    struct record want = { 0 };
    uint32_t split[2] = { 1, world.arch.n_layers - 1 }, reverse[2] = { world.arch.n_layers - 1, 1 };

    (void)state;
    run_local(TERN_BOUNDARY_INT8, &want);
    for (uint32_t n = 1; n <= 6; n += n < 3 ? 1 : 3)
        if (n <= world.arch.n_layers)
            check_cut(n, NULL, TERN_BOUNDARY_INT8, &want);
    check_cut(2, split, TERN_BOUNDARY_INT8, &want);
    check_cut(2, reverse, TERN_BOUNDARY_INT8, &want);
    free(want.bytes);
}

/* f32 rows of 300 positions are more than one message, there and back. */
static void test_formats_give_the_same_bytes(void **state)
{
    static const enum tern_boundary formats[] = { TERN_BOUNDARY_F32, TERN_BOUNDARY_F16,
                                                  TERN_BOUNDARY_INT8X2 };

    (void)state;
    for (size_t i = 0; i < sizeof formats / sizeof formats[0]; i++) {
        struct record want = { 0 };

        run_local(formats[i], &want);
        check_cut(2, NULL, formats[i], &want);
        free(want.bytes);
    }
}

/* -- death and silence ---------------------------------------------------------------------------------- */

/* Sends decode steps until the pipe breaks; the time from `since` to the error. */
static uint64_t wait_for_break(struct pipe *p, uint64_t since, struct tern_err *err)
{
    for (;;) {
        struct tern_step *s = NULL;
        enum tern_status st = p->recv(p, 20000, &s, err);

        if (st == TERN_OK) {
            p->give(p, s);
            continue;
        }
        if (st == TERN_AGAIN)
            fail_msg("no word within 20 s");
        return tern_now_ms() - since;
    }
}

static void send_first(struct pipe *p, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        struct tern_step *s = p->take(p);

        assert_non_null(s);
        fill_step(TERN_BOUNDARY_INT8, &script[i], s);
        s->user = (void *)(uintptr_t)&script[i];
        assert_ok(p->send(p, s, &unit_err));
    }
}

/* Kills a worker of three; the time until that is known. */
static uint64_t kill_one(uint32_t victim)
{
    struct local_cluster c;
    struct record r = { 0 };
    struct tern_err err, again;
    struct tern_step *s = NULL;
    char name[16];
    uint64_t since, ms;

    open_cluster(&c, 3, NULL, TERN_BOUNDARY_INT8);
    send_first(c.pipe, 2);
    take_result(c.pipe, 0, &r);
    since = tern_now_ms();
    assert_int_equal(kill(local_workers_pid(c.workers, victim), SIGKILL), 0);
    ms = wait_for_break(c.pipe, since, &err);
    assert_int_equal(err.status, TERN_ERR_PEER);
    snprintf(name, sizeof name, "worker w%u (", victim + 1);
    if (!strstr(err.text, name) || !strstr(err.text, "connection lost"))
        fail_msg("w%u was killed, but: %s", victim + 1, err.text);
    /* The end is final, for sending too. */
    assert_int_equal(c.pipe->recv(c.pipe, 0, &s, &again), TERN_ERR_PEER);
    assert_string_equal(again.text, err.text);
    s = c.pipe->take(c.pipe);
    if (s)
        assert_int_equal(c.pipe->send(c.pipe, s, &again), TERN_ERR_PEER);
    free(r.bytes);
    close_cluster(&c);
    return ms;
}

static void test_killed_worker_is_named(void **state)
{
    (void)state;
    for (uint32_t victim = 0; victim < 3; victim++) {
        uint64_t ms = UINT64_MAX;

        for (int k = 0; k < TRIES && ms >= 500; k++)
            ms = kill_one(victim);
        if (ms >= 500)
            fail_msg("w%u: it took %llu ms", victim + 1, (unsigned long long)ms);
    }
}

static void test_stopped_worker_is_survived(void **state)
{
    struct local_cluster c;
    struct record r = { 0 };
    struct tern_step *s = NULL;
    pid_t pid;

    (void)state;
    open_cluster(&c, 2, NULL, TERN_BOUNDARY_INT8);
    pid = local_workers_pid(c.workers, 1);
    send_first(c.pipe, 1);
    take_result(c.pipe, 0, &r);
    assert_int_equal(kill(pid, SIGSTOP), 0);
    s = c.pipe->take(c.pipe);
    fill_step(TERN_BOUNDARY_INT8, &script[1], s);
    s->user = (void *)(uintptr_t)&script[1];
    assert_ok(c.pipe->send(c.pipe, s, &unit_err));
    assert_int_equal(c.pipe->recv(c.pipe, 1500, &s, &unit_err), TERN_AGAIN);
    assert_int_equal(kill(pid, SIGCONT), 0);
    take_result(c.pipe, 1, &r);
    free(r.bytes);
    close_cluster(&c);
}

static uint64_t stop_one(void)
{
    struct local_cluster c;
    struct tern_err err;
    uint64_t since, ms;
    pid_t pid;

    open_cluster(&c, 2, NULL, TERN_BOUNDARY_INT8);
    pid = local_workers_pid(c.workers, 0);
    since = tern_now_ms();
    assert_int_equal(kill(pid, SIGSTOP), 0);
    send_first(c.pipe, 1);
    ms = wait_for_break(c.pipe, since, &err);
    kill(pid, SIGCONT);
    if (ms < 2800 || !strstr(err.text, "worker w1 (") || !strstr(err.text, "silent"))
        fail_msg("after %llu ms: %s", (unsigned long long)ms, err.text);
    close_cluster(&c);
    return ms;
}

static void test_worker_stopped_for_good_is_named(void **state)
{
    uint64_t ms = UINT64_MAX;

    (void)state;
    for (int k = 0; k < TRIES && ms > 4000; k++)
        ms = stop_one();
    assert_in_range(ms, 2800, 4000);
}

static void test_leaving_worker_is_named(void **state)
{
    struct local_cluster c;
    struct tern_err err;

    (void)state;
    open_cluster(&c, 2, NULL, TERN_BOUNDARY_INT8);
    assert_int_equal(kill(local_workers_pid(c.workers, 1), SIGTERM), 0);
    (void)wait_for_break(c.pipe, tern_now_ms(), &err);
    if (!strstr(err.text, "worker w2 (") || !strstr(err.text, "leaving"))
        fail_msg("a drained worker gave: %s", err.text);
    close_cluster(&c);
}

/* -- orphans -------------------------------------------------------------------------------------------- */

/* False when there is no such process, or only its remains that nobody has collected. */
static bool process_lives(pid_t pid)
{
    char path[64], line[256], *after;
    FILE *f;

    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    f = fopen(path, "r");
    if (!f)
        return false;
    if (!fgets(line, sizeof line, f))
        line[0] = '\0';
    fclose(f);
    after = strrchr(line, ')');
    return after && after[1] == ' ' && after[2] != 'Z' && after[2] != 'X';
}

/* A coordinator of two workers that tells their numbers and waits to be killed.  A program of its own:
 * threads of the tests must not be forked along. */
static int be_coordinator(int fd)
{
    struct local_cluster c;
    pid_t pids[2];

    if (open_world(NULL) != 0)
        return 1;
    open_cluster(&c, 2, NULL, TERN_BOUNDARY_INT8);
    pids[0] = local_workers_pid(c.workers, 0);
    pids[1] = local_workers_pid(c.workers, 1);
    if (write(fd, pids, sizeof pids) != (ssize_t)sizeof pids)
        return 1;
    for (;;)
        pause();
}

static void test_no_orphans(void **state)
{
    pid_t coordinator, pids[2];
    bool lives = true;
    int ends[2];
    char fd[16];

    (void)state;
    assert_int_equal(pipe(ends), 0);
    snprintf(fd, sizeof fd, "%d", ends[1]);
    coordinator = fork();
    assert_true(coordinator >= 0);
    if (coordinator == 0) {
        close(ends[0]);
        execl("/proc/self/exe", "test_pipe", COORDINATOR_FLAG, fd, (char *)NULL);
        _exit(1);
    }
    close(ends[1]);
    assert_int_equal(read(ends[0], pids, sizeof pids), sizeof pids);
    assert_true(process_lives(pids[0]) && process_lives(pids[1]));
    assert_int_equal(kill(coordinator, SIGKILL), 0);
    assert_int_equal(waitpid(coordinator, NULL, 0), coordinator);
    for (int i = 0; i < 1000 && lives; i++) {
        nanosleep(&(struct timespec){ .tv_nsec = 20000000 }, NULL);
        lives = process_lives(pids[0]) || process_lives(pids[1]);
    }
    assert_false(lives);
    close(ends[0]);
}

/* -- sentences ------------------------------------------------------------------------------------------ */

static void expect_failure(struct local_cluster *c, const struct tern_key *key, uint32_t join_ms,
                           const char *const words[], size_t n_words)
{
    struct pipe_options o = options(TERN_BOUNDARY_INT8);
    struct tern_err err;
    uint64_t since = tern_now_ms();

    o.join_timeout_ms = join_ms;
    memset(&err, 0, sizeof err);
    if (pipe_remote_open(&o, &c->spec, key, &c->pipe, &err) == TERN_OK)
        fail_msg("a pipeline was opened that cannot be");
    assert_true(tern_now_ms() - since < 15000);
    for (size_t i = 0; i < n_words; i++)
        if (!strstr(err.text, words[i]))
            fail_msg("'%s' is missing in: %s", words[i], err.text);
}
#define EXPECT(c, key, ms, ...)                                                                              \
    expect_failure((c), (key), (ms), (const char *const[]){ __VA_ARGS__ },                                   \
                   sizeof((const char *const[]){ __VA_ARGS__ }) / sizeof(char *))

static void test_nobody_there(void **state)
{
    struct local_cluster c;

    (void)state;
    start_workers(&c, 1, NULL, MODEL);
    snprintf(c.spec.members[0].endpoint, sizeof c.spec.members[0].endpoint, "tcp://127.0.0.1:1");
    EXPECT(&c, &c.key, 600, "worker w1 (tcp://127.0.0.1:1", "is ternd running", "port", "firewall");
    close_cluster(&c);
}

static void test_unknown_coordinator(void **state)
{
    struct local_cluster c;
    struct tern_key stranger;
    char z85[TERN_Z85_CHARS + 1];

    (void)state;
    start_workers(&c, 1, NULL, MODEL);
    assert_ok(tern_key_generate(&stranger, &unit_err));
    tern_key_to_z85(stranger.public_key, z85);
    EXPECT(&c, &stranger, 20000, "worker w1 (", "tern coordinator", z85, "allow-list");
    tern_key_wipe(&stranger);
    close_cluster(&c);
}

static void test_another_worker_key(void **state)
{
    struct local_cluster c;
    struct tern_key other;

    (void)state;
    start_workers(&c, 1, NULL, MODEL);
    assert_ok(tern_key_generate(&other, &unit_err));
    memcpy(c.spec.members[0].key, other.public_key, TERN_KEY_BYTES);
    EXPECT(&c, &c.key, 20000, "worker w1 (", "public key", "cluster file");
    tern_key_wipe(&other);
    close_cluster(&c);
}

static void test_another_model(void **state)
{
    const struct tern_tensor *t = tern_gguf_tensor(world.gguf, "blk.0.attn_q.weight");
    char dir[] = "/tmp/tern-pipe-XXXXXX", path[64];
    struct local_cluster c;
    FILE *f;

    (void)state;
    assert_non_null(t);
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/other.gguf", dir);
    f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(world.gguf->bytes, 1, world.gguf->size, f), world.gguf->size);
    assert_int_equal(fseek(f, (long)(t->data - world.gguf->bytes) + 3, SEEK_SET), 0);
    fputc(t->data[3] ^ 0x10, f);
    fclose(f);
    start_workers(&c, 2, NULL, path);
    EXPECT(&c, &c.key, 20000, "worker w1 (", "blk.0.attn_q.weight");
    close_cluster(&c);
    unlink(path);
    rmdir(dir);
}

static void test_worker_that_cannot_start(void **state)
{
    struct local_workers_options lo = { .n = 2, .model_path = "/nonexistent.gguf", .threads = 1 };
    struct local_workers *w = NULL;
    struct cluster_spec spec;
    struct tern_key key;
    struct tern_err err;

    (void)state;
    assert_int_equal(local_workers_start(&lo, &w, &spec, &key, &err), TERN_ERR_PEER);
    assert_null(w);
    assert_non_null(strstr(err.text, "exit status"));
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cuts_give_the_same_bytes),
        cmocka_unit_test(test_formats_give_the_same_bytes),
        cmocka_unit_test(test_killed_worker_is_named),
        cmocka_unit_test(test_stopped_worker_is_survived),
        cmocka_unit_test(test_worker_stopped_for_good_is_named),
        cmocka_unit_test(test_leaving_worker_is_named),
        cmocka_unit_test(test_nobody_there),
        cmocka_unit_test(test_unknown_coordinator),
        cmocka_unit_test(test_another_worker_key),
        cmocka_unit_test(test_another_model),
        cmocka_unit_test(test_worker_that_cannot_start),
        cmocka_unit_test(test_no_orphans),
    };

    if (argc == 3 && strcmp(argv[1], COORDINATOR_FLAG) == 0)
        return be_coordinator(atoi(argv[2]));
    return cmocka_run_group_tests_name("pipe", tests, open_world, close_world);
}
