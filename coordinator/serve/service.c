/* SPDX-License-Identifier: Apache-2.0 */
/* What other threads see of a service: see service.h.  The thread that does the work is in
 * service_run.c. */
#include "coordinator/serve/service_inner.h"

#include "engine/base/log.h"
#include "engine/base/thread.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

/* -- life ------------------------------------------------------------------------------------------------ */

/* "/models/bitnet-2b.gguf" and "/models/bitnet-2b/" are both called bitnet-2b. */
static void name_of(const char *path, char *out, size_t cap)
{
    size_t len = strlen(path), from;

    while (len > 1 && path[len - 1] == '/')
        len--;
    for (from = len; from > 0 && path[from - 1] != '/';)
        from--;
    if (len - from > 5 && memcmp(path + len - 5, ".gguf", 5) == 0)
        len -= 5;
    (void)snprintf(out, cap, "%.*s", (int)(len - from < cap ? len - from : cap - 1), path + from);
}

static enum tern_status choose_chat(struct service *s, struct tern_err *err)
{
    struct tern_err why;

    if (s->o.chat_format) {
        s->chat.format = tern_chat_format_by_name(s->o.chat_format);
        s->chat.why = "by --chat-template";
        return s->chat.format ? TERN_OK
                              : TERN_FAIL(err, TERN_ERR_USAGE,
                                          "--chat-template: there is no format '%.40s'; `tern chat --help` "
                                          "lists those there are",
                                          s->o.chat_format);
    }
    if (tern_chat_choose(s->session->gguf, s->session->tok, &s->chat, &why)) {
        memset(&s->chat, 0, sizeof s->chat);
        tern_log(TERN_LOG_WARN, "serve", "no conversations: %s", why.text);
    }
    return TERN_OK;
}

static enum tern_status start(struct service *s, struct tern_err *err)
{
    enum service_phase phase;
    int rc = tern_thread_start(&s->thread, service_main, s);

    if (rc)
        return TERN_FAIL_SYS(err, TERN_ERR_IO, rc, "cannot start the thread that computes: %s", strerror(rc));
    pthread_mutex_lock(&s->lock);
    while (s->phase == SERVICE_OPENING)
        pthread_cond_wait(&s->opened, &s->lock);
    phase = s->phase;
    pthread_mutex_unlock(&s->lock);
    if (phase != SERVICE_ENDED)
        return TERN_OK;
    pthread_join(s->thread, NULL);
    if (err)
        *err = s->why;
    return s->why.status;
}

/* Everything but the thread. */
static void release(struct service *s)
{
    session_close(&s->session);
    watch_fini(&s->watch);
    if (s->wake_fd >= 0)
        close(s->wake_fd);
    pthread_cond_destroy(&s->opened);
    pthread_mutex_destroy(&s->lock);
    free(s);
}

enum tern_status service_open(const struct service_options *o, struct service **out, struct tern_err *err)
{
    struct service *s = calloc(1, sizeof *s);
    enum tern_status st;

    if (!s)
        return TERN_FAIL(err, TERN_ERR_MEMORY, "no memory for a service");
    if ((st = watch_init(&s->watch, err))) {
        free(s);
        return st;
    }
    s->o = *o;
    s->inbox_end = &s->inbox;
    pthread_mutex_init(&s->lock, NULL);
    pthread_cond_init(&s->opened, NULL);
    atomic_init(&s->cancelled, false);
    atomic_init(&s->draining, false);
    s->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (s->wake_fd < 0)
        st = TERN_FAIL_SYS(err, TERN_ERR_IO, errno, "cannot make an event descriptor: %s", strerror(errno));
    if (!st)
        st = session_open(o->engine, &s->session, err);
    if (!st) {
        if (o->name)
            (void)snprintf(s->name, sizeof s->name, "%s", o->name);
        else
            name_of(o->engine->model, s->name, sizeof s->name);
        st = choose_chat(s, err);
    }
    if (!st)
        st = start(s, err);
    if (st) {
        release(s);
        return st;
    }
    *out = s;
    return TERN_OK;
}

static void wake(struct service *s)
{
    const uint64_t one = 1;
    /* It fails only when it is readable already. */
    ssize_t ignored = write(s->wake_fd, &one, sizeof one);

    (void)ignored;
}

void service_drain(struct service *s)
{
    atomic_store(&s->draining, true);
}

bool service_draining(struct service *s)
{
    return atomic_load(&s->draining);
}

void service_close(struct service **sp)
{
    struct service *s = *sp;

    if (!s)
        return;
    pthread_mutex_lock(&s->lock);
    s->stop = true;
    pthread_mutex_unlock(&s->lock);
    wake(s);
    pthread_join(s->thread, NULL);
    release(s);
    *sp = NULL;
}

/* -- what does not change -------------------------------------------------------------------------------- */

const struct session *service_session(const struct service *s)
{
    return s->session;
}

const struct tern_chat_choice *service_chat(const struct service *s)
{
    return &s->chat;
}

uint32_t service_ctx(const struct service *s)
{
    return s->session->ctx;
}

const char *service_model_name(const struct service *s)
{
    return s->name;
}

/* -- jobs ------------------------------------------------------------------------------------------------ */

/* With the lock held. */
static enum tern_status check_ready(const struct service *s, struct tern_err *err)
{
    if (s->phase == SERVICE_READY)
        return TERN_OK;
    return TERN_FAIL(err, TERN_ERR_PEER, "the pipeline is being opened again: %.300s", s->why.text);
}

bool service_ready(struct service *s, struct tern_err *err)
{
    enum tern_status st;

    pthread_mutex_lock(&s->lock);
    st = check_ready(s, err);
    pthread_mutex_unlock(&s->lock);
    return st == TERN_OK;
}

/* With the lock held. */
static enum tern_status take_in(struct service *s, struct job *j, struct tern_err *err)
{
    enum tern_status st = check_ready(s, err);

    if (st)
        return st;
    if (s->n_active >= s->o.parallel + s->o.max_queue)
        return TERN_FAIL(err, TERN_ERR_BUSY,
                         "there is no room now: slots are %u, places in the queue %u, and all are taken; try "
                         "again later, or serve with a larger --max-queue",
                         (unsigned)s->o.parallel, (unsigned)s->o.max_queue);
    s->n_active++;
    j->number = ++s->n_jobs;
    j->service = s;
    *s->inbox_end = j;
    s->inbox_end = &j->next;
    return TERN_OK;
}

enum tern_status service_submit(struct service *s, const struct job_request *r, struct job **out,
                                struct tern_err *err)
{
    struct job *j;
    enum tern_status st = job_new(s->session, r, s->o.max_tokens, &j, err);

    if (st)
        return st;
    pthread_mutex_lock(&s->lock);
    st = take_in(s, j, err);
    pthread_mutex_unlock(&s->lock);
    if (st) {
        job_drop(j);
        job_drop(j);
        return st;
    }
    wake(s);
    *out = j;
    return TERN_OK;
}

void service_note_cancel(struct service *s)
{
    atomic_store(&s->cancelled, true);
    wake(s);
}

/* -- figures --------------------------------------------------------------------------------------------- */

void service_count_refused(struct service *s)
{
    pthread_mutex_lock(&s->watch.lock);
    s->watch.counts.refused++;
    pthread_mutex_unlock(&s->watch.lock);
}

void service_snapshot(struct service *s, struct snapshot *out)
{
    uint64_t n_jobs;
    uint32_t n_active;
    struct tern_err why = { 0 };
    bool ready;

    watch_snapshot(&s->watch, out);
    pthread_mutex_lock(&s->lock);
    ready = check_ready(s, &why) == TERN_OK;
    n_jobs = s->n_jobs;
    n_active = s->n_active;
    pthread_mutex_unlock(&s->lock);
    out->ready = ready;
    if (!ready)
        (void)snprintf(out->why, sizeof out->why, "%.255s", why.text);
    out->jobs = n_jobs;
    out->n_waiting = n_active > out->n_running ? n_active - out->n_running : 0;
    out->parallel = s->o.parallel;
    out->max_queue = s->o.max_queue;
    out->ctx = s->session->ctx;
}

uint32_t service_traces(struct service *s, uint64_t since, struct snapshot_step *out, uint32_t max)
{
    return watch_traces(&s->watch, since, out, max);
}

uint32_t service_slots(struct service *s, struct snapshot_slot *out, uint32_t max)
{
    return watch_slots(&s->watch, out, max);
}
