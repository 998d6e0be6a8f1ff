/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ternd: from the command line to the loop and back to an exit code.
 *
 * Everything that can be wrong at the start is found here, in the order in which a person would fix it:
 * options, keys, allow-list, model, address.
 */
#include "worker/worker_loop.h"

#include "engine/base/log.h"
#include "engine/base/systemd.h"
#include "kernels/kernels.h"
#include "proto/allow.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

struct program {
    struct worker_config config;
    struct tern_kernels kern;
    struct tern_key key;
    struct tern_allow allow;
    struct worker_file file;
    struct tern_pool *pool;
    int signal_fd;
};

/* -- the outside world ----------------------------------------------------------------------------------- */

static void on_listening(void *arg, const char *endpoint)
{
    struct program *p = arg;
    char key[TERN_Z85_CHARS + 1];
    int fd = p->config.ready_fd;

    tern_key_to_z85(p->key.public_key, key);
    tern_log(TERN_LOG_INFO, "worker", "listening endpoint=%s name=%s key=%s", endpoint, p->config.name, key);
    if (fd >= 0) {
        char line[TERN_MAX_ENDPOINT_BYTES + 2];
        int n = snprintf(line, sizeof line, "%s\n", endpoint);

        if (write(fd, line, (size_t)n) != n)
            tern_log(TERN_LOG_WARN, "ready-fd", "could not be written: %s", strerror(errno));
        close(fd);
        p->config.ready_fd = -1;
    }
    tern_systemd_tell("READY=1");
}

static void on_draining(void *arg)
{
    (void)arg;
    tern_systemd_tell("STOPPING=1");
}

/* SIGTERM and SIGINT become readable events; blocked before any thread exists, so that all threads inherit
 * it. */
static enum tern_status catch_signals(int *fd, struct tern_err *err)
{
    sigset_t set;

    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    if (sigprocmask(SIG_BLOCK, &set, NULL) == 0 && signal(SIGPIPE, SIG_IGN) != SIG_ERR)
        *fd = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
    if (*fd < 0)
        return TERN_FAIL_SYS(err, TERN_ERR_IO, errno, "cannot catch signals: %s", strerror(errno));
    return TERN_OK;
}

/* -- the parts ------------------------------------------------------------------------------------------- */

static enum tern_status open_parts(struct program *p, struct tern_err *err)
{
    const struct worker_config *c = &p->config;
    enum tern_status st = catch_signals(&p->signal_fd, err);

    if (!st)
        st = tern_mapping_guard_install(err);
    if (!st)
        st = tern_keys_init(err);
    if (!st)
        st = tern_key_load(c->key_path, &p->key, err);
    if (!st)
        st = tern_allow_open(c->allow_path, &p->allow, err);
    if (!st)
        st = worker_file_open(c->model_path, &c->file, &p->file, err);
    if (!st)
        st = tern_pool_new(c->threads, &p->pool, err);
    tern_kernels_init(&p->kern, c->cpu);
    return st;
}

static void close_parts(struct program *p)
{
    tern_pool_free(&p->pool);
    worker_file_close(&p->file);
    tern_allow_close(&p->allow);
    tern_key_wipe(&p->key);
    if (p->signal_fd >= 0)
        close(p->signal_fd);
}

static int fail(const struct tern_err *err)
{
    fprintf(stderr, "ternd: %s\n", err->text);
    return tern_status_exit_code(err->status);
}

int main(int argc, char **argv)
{
    struct program p = { .signal_fd = -1 };
    struct worker_loop_options lo = { .config = &p.config,
                                      .file = &p.file,
                                      .kern = &p.kern,
                                      .key = &p.key,
                                      .allow = &p.allow,
                                      .on_listening = on_listening,
                                      .on_draining = on_draining,
                                      .arg = &p };
    struct tern_err err;
    enum tern_status st = worker_config_parse(argc, argv, &p.config, &err);

    if (st)
        return fail(&err);
    if (p.config.show_help || p.config.show_version) {
        if (p.config.show_help)
            worker_config_print_help();
        else
            puts("ternd " TERN_VERSION);
        return fflush(stdout) == 0 ? 0 : tern_status_exit_code(TERN_ERR_IO);
    }
    tern_log_set_level(p.config.verbose ? TERN_LOG_DEBUG : p.config.quiet ? TERN_LOG_WARN : TERN_LOG_INFO);
    st = open_parts(&p, &err);
    if (!st) {
        struct tern_layout_choice choice;

        /* Before there are peers who would have to wait for it. */
        tern_layout_choose(p.config.layout, &p.kern, p.pool, &choice);
        tern_layout_log(&choice);
        lo.layout = choice.layout;
        lo.pool = p.pool;
        lo.signal_fd = p.signal_fd;
        st = worker_loop_run(&lo, &err);
    }
    close_parts(&p);
    return st ? fail(&err) : 0;
}
