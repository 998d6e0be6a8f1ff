/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Starting and ending the ternd processes of `--local N`.
 *
 * A child gets six descriptors and nothing else: /dev/null twice, our stderr, its key and its allow-list
 * (memory files), the pipe that takes its endpoint, and the lifeline: a pipe whose only write end is ours, so
 * that its end of file is our death.
 */
#include "coordinator/local_workers.h"

#include "coordinator/interrupt.h"
#include "engine/base/log.h"
#include "proto/endpoint.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define START_MS     5000
#define STOP_MS      2000
#define STOP_POLL_MS 10
#define MAX_ARGS     (32 + TERN_FILE_WORDS)

struct child {
    pid_t pid;                                     /* 0: not running, or reaped */
    int key_fd, allow_fd, ready_read, ready_write; /* -1: closed */
    char line[TERN_MAX_ENDPOINT_BYTES + 2];        /* what it has reported so far */
    size_t line_len;
    bool ready;
};

struct local_workers {
    uint32_t n;
    int lifeline_read, lifeline_write, null_fd;
    char program[4096];
    struct child children[TERN_MAX_WORKERS];
};

/* -- finding the program -------------------------------------------------------------------------------- */

static bool find_in_path(char *out, size_t cap)
{
    const char *at = getenv("PATH");

    while (at && *at) {
        const char *end = strchrnul(at, ':');

        /* An empty entry would be the current directory: not from there. */
        if (end > at && (size_t)snprintf(out, cap, "%.*s/ternd", (int)(end - at), at) < cap &&
            access(out, X_OK) == 0)
            return true;
        at = *end ? end + 1 : end;
    }
    return false;
}

static enum tern_status find_program(char *out, size_t cap, struct tern_err *err)
{
    char exe[4096];
    ssize_t n = readlink("/proc/self/exe", exe, sizeof exe - 1);
    char *slash;

    if (n > 0) {
        exe[n] = '\0';
        slash = strrchr(exe, '/');
        if (slash) {
            *slash = '\0';
            if ((size_t)snprintf(out, cap, "%s/ternd", exe) < cap && access(out, X_OK) == 0)
                return TERN_OK;
        }
    }
    if (find_in_path(out, cap))
        return TERN_OK;
    return TERN_FAIL(err, TERN_ERR_USAGE,
                     "ternd is neither beside this program nor in PATH; build or install it");
}

/* -- keys and lists in memory files --------------------------------------------------------------------- */

/* Close-on-exec and readable by us alone. */
static enum tern_status memory_file(const char *name, int *out, struct tern_err *err)
{
    int fd = memfd_create(name, MFD_CLOEXEC);

    if (fd < 0 || fchmod(fd, 0600) != 0) {
        int no = errno;

        if (fd >= 0)
            close(fd);
        return TERN_FAIL_SYS(err, TERN_ERR_IO, no, "cannot make a memory file: %s", strerror(no));
    }
    *out = fd;
    return TERN_OK;
}

static enum tern_status write_all(int fd, const char *text, size_t len, struct tern_err *err)
{
    while (len > 0) {
        ssize_t n = write(fd, text, len);

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return TERN_FAIL_SYS(err, TERN_ERR_IO, errno, "cannot write to a memory file: %s",
                                 strerror(errno));
        text += n;
        len -= (size_t)n;
    }
    return TERN_OK;
}

/* The coordinator, and as a worker everybody but the reader itself. */
static enum tern_status write_allow(int fd, const struct cluster_spec *spec, uint32_t self,
                                    const struct tern_key *coordinator, struct tern_err *err)
{
    char z85[TERN_Z85_CHARS + 1], line[TERN_MAX_NAME_BYTES + TERN_Z85_CHARS + 32];
    enum tern_status st;

    tern_key_to_z85(coordinator->public_key, z85);
    snprintf(line, sizeof line, "tern coordinator %s\n", z85);
    st = write_all(fd, line, strlen(line), err);
    for (uint32_t i = 0; i < spec->n && st == TERN_OK; i++) {
        if (i == self)
            continue;
        tern_key_to_z85(spec->members[i].key, z85);
        snprintf(line, sizeof line, "%s worker %s\n", spec->members[i].name, z85);
        st = write_all(fd, line, strlen(line), err);
    }
    return st;
}

/* Names and keys of all, and each one's key file; secrets exist nowhere else afterwards. */
static enum tern_status make_members(struct local_workers *w, const struct local_workers_options *o,
                                     struct cluster_spec *spec, struct tern_err *err)
{
    uint32_t next = 0;
    enum tern_status st = TERN_OK;

    spec->n = o->n;
    for (uint32_t i = 0; i < o->n && st == TERN_OK; i++) {
        struct cluster_member *m = &spec->members[i];
        struct tern_key key;

        snprintf(m->name, sizeof m->name, "w%u", i + 1);
        if (o->split) {
            m->has_layers = true;
            m->first = next;
            m->last = next + o->split[i];
            next = m->last;
        }
        st = tern_key_generate(&key, err);
        if (st)
            break;
        memcpy(m->key, key.public_key, TERN_KEY_BYTES);
        st = memory_file("tern-key", &w->children[i].key_fd, err);
        if (st == TERN_OK)
            st = tern_key_write(w->children[i].key_fd, &key, err);
        tern_key_wipe(&key);
    }
    return st;
}

/* -- a child -------------------------------------------------------------------------------------------- */

/* argv of ternd; numbers live in `store`.  Made before the fork, because nothing may be formatted behind
 * it. */
struct child_args {
    char store[6][64];
    const char *argv[MAX_ARGS];
};

static void make_args(const struct local_workers *w, const struct local_workers_options *o,
                      const struct child *c, const char *name, struct child_args *a)
{
    int n = 0;

    snprintf(a->store[0], sizeof a->store[0], "/proc/self/fd/%d", c->key_fd);
    snprintf(a->store[1], sizeof a->store[1], "/proc/self/fd/%d", c->allow_fd);
    snprintf(a->store[2], sizeof a->store[2], "%u", o->threads);
    snprintf(a->store[3], sizeof a->store[3], "%d", c->ready_write);
    snprintf(a->store[4], sizeof a->store[4], "%d", w->lifeline_read);
    snprintf(a->store[5], sizeof a->store[5], "%s", name);
    a->argv[n++] = w->program;
    a->argv[n++] = "--listen";
    a->argv[n++] = "127.0.0.1:*";
    a->argv[n++] = "--key";
    a->argv[n++] = a->store[0];
    a->argv[n++] = "--allow";
    a->argv[n++] = a->store[1];
    a->argv[n++] = "--model";
    a->argv[n++] = o->model_path;
    a->argv[n++] = "--threads";
    a->argv[n++] = a->store[2];
    a->argv[n++] = "--ready-fd";
    a->argv[n++] = a->store[3];
    a->argv[n++] = "--lifeline";
    a->argv[n++] = a->store[4];
    a->argv[n++] = "--name";
    a->argv[n++] = a->store[5];
    if (o->cpu) {
        a->argv[n++] = "--cpu";
        a->argv[n++] = o->cpu;
    }
    if (o->file)
        n += (int)tern_file_option_words(o->file, a->argv + n);
    if (o->layout) {
        a->argv[n++] = "--layout";
        a->argv[n++] = o->layout;
    }
    a->argv[n++] = o->verbose ? "--verbose" : "--quiet";
    a->argv[n] = NULL;
    TERN_BUG_IF(n >= MAX_ARGS);
}

static _Noreturn void child_fail(const char *what)
{
    const char *why = strerrorname_np(errno);
    ssize_t ignored;

    ignored = write(STDERR_FILENO, "tern: cannot start ternd: ", 26);
    ignored = write(STDERR_FILENO, what, strlen(what));
    ignored = write(STDERR_FILENO, ": ", 2);
    ignored = write(STDERR_FILENO, why ? why : "?", why ? strlen(why) : 1);
    ignored = write(STDERR_FILENO, "\n", 1);
    (void)ignored;
    _exit(71);
}

/* In the child: async-signal-safe calls only, for other threads may have held any lock at the fork. */
static _Noreturn void child_main(const struct local_workers *w, const struct child *c,
                                 const struct child_args *a, pid_t parent)
{
    static const int to_default[] = { SIGINT, SIGTERM, SIGHUP, SIGPIPE, SIGQUIT };
    const int keep[] = { c->key_fd, c->allow_fd, c->ready_write, w->lifeline_read };
    sigset_t none;

    if (prctl(PR_SET_PDEATHSIG, SIGKILL) != 0)
        child_fail("PR_SET_PDEATHSIG");
    if (getppid() != parent)
        _exit(0); /* it died before the line above */
    /* A group of its own: Ctrl-C is for the coordinator, which then ends its workers in good order. */
    if (setpgid(0, 0) != 0)
        child_fail("setpgid");
    if (dup2(w->null_fd, STDIN_FILENO) < 0 || dup2(w->null_fd, STDOUT_FILENO) < 0)
        child_fail("dup2");
    /* Without this call (Linux before 5.11) descriptors that somebody opened without close-on-exec go
     * along. */
    (void)close_range(STDERR_FILENO + 1, ~0u, CLOSE_RANGE_CLOEXEC);
    for (size_t i = 0; i < sizeof keep / sizeof keep[0]; i++)
        if (fcntl(keep[i], F_SETFD, 0) != 0)
            child_fail("fcntl");
    for (size_t i = 0; i < sizeof to_default / sizeof to_default[0]; i++)
        signal(to_default[i], SIG_DFL);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    execv(w->program, (char *const *)(uintptr_t)a->argv);
    child_fail(w->program);
}

static void close_fd(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

static enum tern_status start_child(struct local_workers *w, const struct local_workers_options *o,
                                    uint32_t i, const struct cluster_spec *spec,
                                    const struct tern_key *coordinator, struct tern_err *err)
{
    struct child *c = &w->children[i];
    struct child_args args;
    sigset_t all, old;
    pid_t parent = getpid();
    int ends[2];
    enum tern_status st = memory_file("tern-allow", &c->allow_fd, err);

    if (st == TERN_OK)
        st = write_allow(c->allow_fd, spec, i, coordinator, err);
    if (st)
        return st;
    if (pipe2(ends, O_CLOEXEC) != 0)
        return TERN_FAIL_SYS(err, TERN_ERR_IO, errno, "cannot make a pipe: %s", strerror(errno));
    c->ready_read = ends[0];
    c->ready_write = ends[1];
    make_args(w, o, c, spec->members[i].name, &args);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    c->pid = fork();
    if (c->pid == 0)
        child_main(w, c, &args, parent);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (c->pid < 0) {
        c->pid = 0;
        return TERN_FAIL_SYS(err, TERN_ERR_IO, errno, "cannot start %s: %s", w->program, strerror(errno));
    }
    close_fd(&c->key_fd);
    close_fd(&c->allow_fd);
    close_fd(&c->ready_write);
    return TERN_OK;
}

/* -- waiting for all to be bound ------------------------------------------------------------------------ */

/* It closed its pipe without a line: say how it ended. */
static enum tern_status fail_child(struct child *c, const char *name, struct tern_err *err)
{
    int status = 0;
    pid_t got = 0;

    for (int i = 0; i < 100 && got == 0; i++) {
        got = waitpid(c->pid, &status, WNOHANG);
        if (got == 0)
            nanosleep(&(struct timespec){ .tv_nsec = STOP_POLL_MS * 1000000L }, NULL);
    }
    if (got != c->pid)
        return TERN_FAIL(err, TERN_ERR_PEER, "local worker %s did not report its address", name);
    c->pid = 0;
    if (WIFSIGNALED(status))
        return TERN_FAIL(err, TERN_ERR_PEER, "local worker %s was killed by signal %d while it started", name,
                         WTERMSIG(status));
    return TERN_FAIL(err, TERN_ERR_PEER,
                     "local worker %s ended with exit status %d while it started; its own message is above",
                     name, WEXITSTATUS(status));
}

/* Reads what there is of a child's line. */
static enum tern_status read_line(struct child *c, struct cluster_member *m, struct tern_err *err)
{
    ssize_t n = read(c->ready_read, c->line + c->line_len, sizeof c->line - c->line_len);
    char *end;

    if (n < 0 && errno == EINTR)
        return TERN_OK;
    if (n <= 0)
        return fail_child(c, m->name, err);
    c->line_len += (size_t)n;
    end = memchr(c->line, '\n', c->line_len);
    if (!end && c->line_len < sizeof c->line)
        return TERN_OK;
    if (!end || !tern_endpoint_valid(c->line, (size_t)(end - c->line)))
        return TERN_FAIL(err, TERN_ERR_FORMAT, "local worker %s reported an address that is none", m->name);
    memcpy(m->endpoint, c->line, (size_t)(end - c->line));
    m->endpoint[end - c->line] = '\0';
    c->ready = true;
    close_fd(&c->ready_read);
    return TERN_OK;
}

static enum tern_status await_children(struct local_workers *w, struct cluster_spec *spec,
                                       struct tern_err *err)
{
    uint64_t end = tern_now_ms() + START_MS;

    for (;;) {
        struct pollfd fds[TERN_MAX_WORKERS];
        uint32_t who[TERN_MAX_WORKERS], n = 0;
        uint64_t now = tern_now_ms();
        enum tern_status st;

        for (uint32_t i = 0; i < w->n; i++) {
            if (w->children[i].ready)
                continue;
            fds[n] = (struct pollfd){ .fd = w->children[i].ready_read, .events = POLLIN };
            who[n++] = i;
        }
        if (n == 0)
            return TERN_OK;
        if (now >= end)
            return TERN_FAIL(err, TERN_ERR_PEER, "local worker %s was not ready within %d s",
                             spec->members[who[0]].name, START_MS / 1000);
        if ((st = interrupt_check(err)))
            return st;
        if (poll(fds, n, (int)(end - now < INTERRUPT_LOOK_MS ? end - now : INTERRUPT_LOOK_MS)) < 0 &&
            errno != EINTR)
            return TERN_FAIL_SYS(err, TERN_ERR_IO, errno, "cannot wait for the local workers: %s",
                                 strerror(errno));
        for (uint32_t k = 0; k < n; k++) {
            if (fds[k].revents) {
                st = read_line(&w->children[who[k]], &spec->members[who[k]], err);

                if (st)
                    return st;
            }
        }
    }
}

/* -- the whole ------------------------------------------------------------------------------------------ */

static enum tern_status start_all(struct local_workers *w, const struct local_workers_options *o,
                                  struct cluster_spec *spec, const struct tern_key *key, struct tern_err *err)
{
    int ends[2];
    enum tern_status st = find_program(w->program, sizeof w->program, err);

    if (st)
        return st;
    if (pipe2(ends, O_CLOEXEC) != 0)
        return TERN_FAIL_SYS(err, TERN_ERR_IO, errno, "cannot make a pipe: %s", strerror(errno));
    w->lifeline_read = ends[0];
    w->lifeline_write = ends[1];
    w->null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    if (w->null_fd < 0)
        return TERN_FAIL_SYS(err, TERN_ERR_IO, errno, "cannot open /dev/null: %s", strerror(errno));
    st = make_members(w, o, spec, err);
    for (uint32_t i = 0; i < o->n && st == TERN_OK; i++)
        st = start_child(w, o, i, spec, key, err);
    close_fd(&w->lifeline_read);
    close_fd(&w->null_fd);
    return st ? st : await_children(w, spec, err);
}

enum tern_status local_workers_start(const struct local_workers_options *o, struct local_workers **out,
                                     struct cluster_spec *spec, struct tern_key *key, struct tern_err *err)
{
    struct local_workers *w;
    struct cluster_spec *made;
    struct tern_key mine;
    enum tern_status st;

    if (o->n == 0 || o->n > TERN_MAX_WORKERS)
        return TERN_FAIL(err, TERN_ERR_USAGE, "%u local workers were asked for; 1 to %d are possible", o->n,
                         TERN_MAX_WORKERS);
    st = tern_key_generate(&mine, err);
    if (st)
        return st;
    w = calloc(1, sizeof *w);
    made = calloc(1, sizeof *made);
    if (w) {
        w->n = o->n;
        w->lifeline_read = w->lifeline_write = w->null_fd = -1;
        for (uint32_t i = 0; i < TERN_MAX_WORKERS; i++) {
            struct child *c = &w->children[i];

            c->key_fd = c->allow_fd = c->ready_read = c->ready_write = -1;
        }
    }
    st = w && made ? start_all(w, o, made, &mine, err)
                   : TERN_FAIL(err, TERN_ERR_MEMORY, "no memory for the local workers");
    if (st) {
        local_workers_stop(&w);
        tern_key_wipe(&mine);
    } else {
        *out = w;
        *spec = *made;
        *key = mine;
    }
    free(made);
    return st;
}

pid_t local_workers_pid(const struct local_workers *w, uint32_t i)
{
    return i < w->n ? w->children[i].pid : 0;
}

/* True when all have been reaped within ms. */
static bool reap(struct local_workers *w, int ms)
{
    uint64_t end = tern_now_ms() + (uint64_t)ms;

    for (;;) {
        bool all = true;

        for (uint32_t i = 0; i < w->n; i++) {
            struct child *c = &w->children[i];

            if (c->pid > 0 && waitpid(c->pid, NULL, WNOHANG) != 0)
                c->pid = 0;
            all = all && c->pid == 0;
        }
        if (all || tern_now_ms() >= end)
            return all;
        nanosleep(&(struct timespec){ .tv_nsec = STOP_POLL_MS * 1000000L }, NULL);
    }
}

static void signal_all(const struct local_workers *w, int sig)
{
    for (uint32_t i = 0; i < w->n; i++)
        if (w->children[i].pid > 0)
            kill(w->children[i].pid, sig);
}

void local_workers_stop(struct local_workers **wp)
{
    struct local_workers *w = *wp;

    if (!w)
        return;
    close_fd(&w->lifeline_write);
    signal_all(w, SIGTERM);
    if (!reap(w, STOP_MS)) {
        signal_all(w, SIGKILL);
        (void)reap(w, STOP_MS);
    }
    for (uint32_t i = 0; i < w->n; i++) {
        struct child *c = &w->children[i];

        close_fd(&c->key_fd);
        close_fd(&c->allow_fd);
        close_fd(&c->ready_read);
        close_fd(&c->ready_write);
    }
    close_fd(&w->lifeline_read);
    close_fd(&w->null_fd);
    free(w);
    *wp = NULL;
}
