/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The thread that drives a service: it alone touches the pipeline and the scheduler.
 *
 * It opens the pipeline, so that child processes are its own (local_workers.h), and as long as that holds
 * takes turns: new jobs in, cancelled ones out, one turn of the scheduler, what has become final to the
 * readers.  When the pipeline breaks its jobs fail, and it is opened again after a pause that grows.
 */
#include "coordinator/serve/service_inner.h"

#include "coordinator/interrupt.h"
#include "engine/base/log.h"
#include "engine/base/mem.h"
#include "kernels/cpu.h"

#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PAUSE_FIRST_MS 500
#define PAUSE_LAST_MS  5000
#define LATER_MS       1    /* a reader takes to look */
#define SLEEP_MS       1000 /* with a step under way: in case its end was not noticed */

/* -- the pipeline ---------------------------------------------------------------------------------------- */

static void on_step(void *user, const struct sched_trace *t)
{
    struct service *s = user;

    watch_step(&s->watch, t, sched_stats(s->session->sched));
}

static void set_phase(struct service *s, enum service_phase phase, const struct tern_err *why)
{
    pthread_mutex_lock(&s->lock);
    s->phase = phase;
    if (why)
        s->why = *why;
    pthread_cond_broadcast(&s->opened);
    pthread_mutex_unlock(&s->lock);
}

static enum tern_status open_pipeline(struct service *s, struct tern_err *err)
{
    const struct session_room room = { .n_at_once = s->o.parallel,
                                       .n_prefixes = s->o.n_prefixes,
                                       .max_len = s->session->ctx,
                                       .on_step = on_step,
                                       .on_step_user = s };
    enum tern_status st = session_connect(s->session, &room, err);

    if (!st)
        st = watch_open(&s->watch, s->session->pipe, err);
    if (st)
        session_disconnect(s->session);
    return st;
}

static void close_pipeline(struct service *s)
{
    watch_close(&s->watch);
    session_disconnect(s->session);
}

/* -- jobs come and go ------------------------------------------------------------------------------------ */

static void link_job(struct service *s, struct job *j)
{
    j->next = s->jobs;
    j->prev = NULL;
    if (s->jobs)
        s->jobs->prev = j;
    s->jobs = j;
}

static void unlink_job(struct service *s, struct job *j)
{
    if (j->prev)
        j->prev->next = j->next;
    else
        s->jobs = j->next;
    if (j->next)
        j->next->prev = j->prev;
}

static void count_end(struct service *s, const struct job *j)
{
    const enum generate_end end = j->state.end;
    struct watch_counts *c = &s->watch.counts;

    pthread_mutex_lock(&s->watch.lock);
    if (end == GENERATE_INTERRUPTED)
        c->cancelled++;
    else if (end == GENERATE_ERROR)
        c->failed++;
    else
        c->ended++;
    pthread_mutex_unlock(&s->watch.lock);
}

/* It has ended and its reader knows: the driver lets go of it. */
static void retire(struct service *s, struct job *j)
{
    unlink_job(s, j);
    count_end(s, j);
    pthread_mutex_lock(&s->lock);
    s->n_active--;
    pthread_mutex_unlock(&s->lock);
    job_drop(j);
}

/* Ends it, whether the scheduler has it or not. */
static void end_job(struct service *s, struct job *j, const struct tern_err *err)
{
    job_end(j, err);
    if (s->session->sched)
        sched_forget(s->session->sched, job_seq(j));
    (void)job_publish(j);
    retire(s, j);
}

static bool take_inbox(struct service *s)
{
    struct job *list, *j;
    bool stop;

    pthread_mutex_lock(&s->lock);
    list = s->inbox;
    s->inbox = NULL;
    s->inbox_end = &s->inbox;
    stop = s->stop;
    pthread_mutex_unlock(&s->lock);
    while ((j = list) != NULL) {
        struct tern_err err;

        list = j->next;
        link_job(s, j);
        if (atomic_load(&j->cancelled)) /* drop_cancelled may have looked before it came in */
            end_job(s, j, NULL);
        else if (sched_add(s->session->sched, job_seq(j), &err))
            end_job(s, j, &err);
    }
    return !stop;
}

static void drop_cancelled(struct service *s)
{
    if (!atomic_exchange(&s->cancelled, false))
        return;
    for (struct job *j = s->jobs, *next; j; j = next) {
        next = j->next;
        if (atomic_load(&j->cancelled))
            end_job(s, j, NULL);
    }
}

/* All of them, those in the inbox too; no more come in while the phase is not READY. */
static void end_all(struct service *s, const struct tern_err *err)
{
    struct job *list;

    pthread_mutex_lock(&s->lock);
    list = s->inbox;
    s->inbox = NULL;
    s->inbox_end = &s->inbox;
    pthread_mutex_unlock(&s->lock);
    while (list) {
        struct job *j = list;

        list = j->next;
        link_job(s, j);
    }
    while (s->jobs)
        end_job(s, s->jobs, err);
}

/* -- telling --------------------------------------------------------------------------------------------- */

/* Called with the watch's lock held. */
static void count_job(struct service *s, struct job *j)
{
    struct watch *w = &s->watch;
    const struct seq *q = job_seq(j);

    if (q->t_start_ns && !j->counted_start) {
        j->counted_start = true;
        watch_latency_add(&w->queued, (q->t_start_ns - j->t_submit_ns) / 1000);
    }
    if (!q->t_first_ns)
        return;
    if (!j->counted_first) {
        j->counted_first = true;
        w->counts.prompt_tokens += j->state.n_prompt;
        if (j->r.kind == JOB_TEXT)
            watch_latency_add(&w->first_token, (q->t_first_ns - j->t_submit_ns) / 1000);
        j->t_counted_ns = q->t_first_ns;
        j->n_counted = 1;
        w->counts.answer_tokens += j->r.kind == JOB_TEXT;
    }
    if (j->r.kind == JOB_TEXT && j->gen.n_tokens > j->n_counted) {
        const uint32_t n = j->gen.n_tokens - j->n_counted;

        watch_latency_add(&w->between_tokens, (q->t_last_ns - j->t_counted_ns) / n / 1000);
        w->counts.answer_tokens += n;
        j->n_counted = j->gen.n_tokens;
        j->t_counted_ns = q->t_last_ns;
    }
}

static void fill_slot(const struct service *s, const struct job *j, uint64_t now_ns,
                      struct snapshot_slot *out)
{
    const struct seq *q = j->r.kind == JOB_EMBED ? &j->embed.seq : &j->gen.seq;
    const uint32_t n_prompt = j->state.n_prompt;

    *out =
        (struct snapshot_slot){ .slot = (uint32_t)j->slot,
                                .job = j->number,
                                .prompting = q->t_first_ns == 0,
                                .n_prompt = n_prompt,
                                .n_prompt_done = q->t_first_ns || q->n_sent > n_prompt ? n_prompt : q->n_sent,
                                .n_cached = q->n_cached,
                                .n_tokens = j->r.kind == JOB_TEXT ? j->gen.n_tokens : 0,
                                .n_ctx = s->session->ctx,
                                .seconds = (double)(now_ns - q->t_start_ns) / 1e9 };
}

/* To those in this state that have begun and have none yet. */
static void give_slots(struct service *s, enum seq_state state, bool *taken)
{
    for (struct job *j = s->jobs; j; j = j->next) {
        const struct seq *q = job_seq(j);
        uint32_t i = 0;

        if (q->state != state || !q->t_start_ns || j->slot >= 0)
            continue;
        while (i < s->o.parallel && taken[i])
            i++;
        if (i == s->o.parallel)
            return;
        taken[i] = true;
        j->slot = (int)i;
    }
}

/* A job that is computed keeps its slot, of as many as there may be at once.  The scheduler's own are more,
 * for prefixes that stay. */
static void share_slots(struct service *s)
{
    bool taken[TERN_MAX_SLOTS] = { false };

    for (struct job *j = s->jobs; j; j = j->next) {
        const enum seq_state state = job_seq(j)->state;

        if (state == SEQ_QUEUED) /* for the first time, or to begin anew */
            j->slot = -1;
        else if (state == SEQ_LIVE && j->slot >= 0)
            taken[j->slot] = true;
    }
    give_slots(s, SEQ_LIVE, taken);
    give_slots(s, SEQ_ENDED, taken); /* through within one turn */
}

static void tell_figures(struct service *s)
{
    struct watch *w = &s->watch;
    const uint64_t now = tern_now_ns();

    share_slots(s);
    pthread_mutex_lock(&w->lock);
    w->sched = *sched_stats(s->session->sched);
    w->n_slots = 0;
    for (struct job *j = s->jobs; j; j = j->next) {
        count_job(s, j);
        if (job_seq(j)->state == SEQ_LIVE && w->n_slots < TERN_MAX_SLOTS)
            fill_slot(s, j, now, &w->slots[w->n_slots++]);
    }
    w->counts.n_running = w->n_slots;
    pthread_mutex_unlock(&w->lock);
}

/* True when some of it is still to be told. */
static bool publish_all(struct service *s)
{
    bool later = false;

    tell_figures(s);
    for (struct job *j = s->jobs, *next; j; j = next) {
        const enum job_shown shown = job_publish(j);

        next = j->next;
        later |= shown == JOB_LATER;
        if (shown != JOB_ENDED)
            continue;
        sched_forget(s->session->sched, job_seq(j));
        retire(s, j);
    }
    return later;
}

/* -- turns ----------------------------------------------------------------------------------------------- */

/* Until somebody has something for us or, with a pipe, something has come from it: then true. */
static bool wait_for(struct service *s, const struct pipe *pipe, int timeout_ms)
{
    struct pollfd fds[2] = { { .fd = s->wake_fd, .events = POLLIN }, { .fd = -1, .events = POLLIN } };
    uint64_t ignored;

    if (pipe)
        fds[1].fd = pipe->fd;
    if (poll(fds, 2, timeout_ms) <= 0)
        return false;
    if (fds[0].revents && read(s->wake_fd, &ignored, sizeof ignored) < 0)
        return false;
    return fds[1].revents != 0;
}

/* With nothing under way.  What comes from the pipeline then is the news of its end: it is opened again
 * before somebody asks. */
static enum tern_status sleep_idle(struct service *s, struct tern_err *err)
{
    struct pipe *pipe = s->session->pipe;
    struct tern_step *step = NULL;
    enum tern_status st;

    if (!wait_for(s, pipe, -1))
        return TERN_OK;
    st = pipe->recv(pipe, 0, &step, err);
    if (st == TERN_OK) {
        pipe->give(pipe, step);
        return TERN_FAIL(err, TERN_ERR_STATE, "a step came home that nobody had sent");
    }
    return st == TERN_AGAIN ? TERN_OK : st;
}

/* Until the pipeline breaks, or TERN_END: the service is being closed. */
static enum tern_status drive(struct service *s, struct tern_err *err)
{
    for (;;) {
        enum tern_status st;
        bool later;

        if (!take_inbox(s))
            return TERN_END;
        drop_cancelled(s);
        for (struct job *j = s->jobs; j; j = j->next)
            job_reserve(j);
        tern_alloc_guard_begin("a token");
        st = sched_turn(s->session->sched, 0, err);
        tern_alloc_guard_end();
        if (st && st != TERN_AGAIN && st != TERN_END)
            return st;
        later = publish_all(s);
        if (st == TERN_AGAIN)
            (void)wait_for(s, s->session->pipe,
                           later ? LATER_MS : sched_wait_ms(s->session->sched, SLEEP_MS));
        else if (st == TERN_END && s->jobs)
            return TERN_FAIL(err, TERN_ERR_STATE,
                             "the scheduler has nothing to do but not every request has been answered");
        else if (st == TERN_END && (st = sleep_idle(s, err)))
            return st;
    }
}

/* Tries until it is open again; TERN_END: the service is being closed. */
static enum tern_status reopen(struct service *s)
{
    int pause_ms = PAUSE_FIRST_MS;

    for (;;) {
        struct tern_err err;
        uint64_t until = tern_now_ms() + (uint64_t)pause_ms, now;
        bool stop;

        do {
            pthread_mutex_lock(&s->lock);
            stop = s->stop;
            pthread_mutex_unlock(&s->lock);
            now = tern_now_ms();
            if (!stop && now < until)
                (void)wait_for(s, NULL, (int)(until - now));
        } while (!stop && now < until);
        if (stop || interrupt_signal())
            return TERN_END;
        if (!open_pipeline(s, &err))
            break;
        tern_log_err("serve", &err);
        set_phase(s, SERVICE_BROKEN, &err);
        pause_ms = pause_ms * 2 < PAUSE_LAST_MS ? pause_ms * 2 : PAUSE_LAST_MS;
    }
    pthread_mutex_lock(&s->watch.lock);
    s->watch.counts.reopened++;
    pthread_mutex_unlock(&s->watch.lock);
    tern_log(TERN_LOG_WARN, "serve", "the pipeline is open again");
    return TERN_OK;
}

void *service_main(void *service)
{
    struct service *s = service;
    struct tern_err err;
    enum tern_status st;

    tern_cpu_set_float_mode();
    st = open_pipeline(s, &err);
    if (st) {
        set_phase(s, SERVICE_ENDED, &err);
        return NULL;
    }
    do {
        set_phase(s, SERVICE_READY, NULL);
        st = drive(s, &err);
        if (st == TERN_END)
            (void)TERN_FAIL(&err, TERN_ERR_PEER, "the server is being stopped");
        else
            tern_log_err("serve", &err);
        err.status = TERN_ERR_PEER; /* whatever broke it, no request is to blame */
        set_phase(s, SERVICE_BROKEN, &err);
        end_all(s, &err);
        close_pipeline(s);
        if (st != TERN_END)
            st = reopen(s);
    } while (st == TERN_OK);
    set_phase(s, SERVICE_ENDED, NULL);
    return NULL;
}
