/* SPDX-License-Identifier: Apache-2.0 */
/* Several jobs of one request: see api_batch.h. */
#include "coordinator/serve/api_batch.h"

#include "coordinator/serve/service.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#define SHARED_WAIT_MS 10 /* for one of several jobs: others may have something sooner */

static enum tern_status submit(struct api_batch *b, struct api_fault *f)
{
    while (b->n_submitted < b->n && b->n_submitted - b->n_ended < API_WINDOW) {
        struct job_request r;
        enum tern_status st;

        memset(&r, 0, sizeof r);
        b->calls->fill(b->user, b->n_submitted, &r);
        st = service_submit(b->service, &r, &b->jobs[b->n_submitted], &f->err);
        if (st == TERN_ERR_BUSY && b->n_submitted > 0)
            return TERN_OK;
        if (st) {
            if (st == TERN_ERR_BUSY || st == TERN_ERR_PEER)
                service_count_refused(b->service);
            return api_fault_take(f, NULL);
        }
        b->n_submitted++;
    }
    return TERN_OK;
}

enum tern_status api_batch_begin(struct api_batch *b, struct service *service, uint32_t n,
                                 const struct api_batch_calls *calls, void *user, struct api_fault *f)
{
    memset(b, 0, sizeof *b);
    b->jobs = calloc(n, sizeof(struct job *));
    if (!b->jobs)
        return api_fault_set(f, TERN_ERR_MEMORY, NULL, NULL, "No memory for %u answers.", (unsigned)n);
    b->service = service;
    b->calls = calls;
    b->user = user;
    b->n = n;
    return submit(b, f);
}

/* One job: true when something had come.  A piece for which there is no memory fails the request. */
static bool look(struct api_batch *b, uint32_t i, int wait_ms)
{
    struct job_piece p;
    struct job_state s;
    bool any;

    job_wait(b->jobs[i], wait_ms, &s);
    job_take(b->jobs[i], &p);
    b->no_memory |= p.failed;
    any = p.n_text > 0 || p.n_tokens > 0;
    if (any)
        b->calls->piece(b->user, i, &p, &s);
    else if (!s.ended && b->calls->waiting)
        b->calls->waiting(b->user, i, &s);
    job_piece_free(&p);
    if (s.ended) {
        b->calls->ended(b->user, i, &s);
        job_free(&b->jobs[i]);
        b->n_ended++;
    }
    return any || s.ended;
}

/* None of ours is there to wait for. */
static void nap(int wait_ms)
{
    const int ms = wait_ms < SHARED_WAIT_MS ? wait_ms : SHARED_WAIT_MS;

    if (ms > 0)
        nanosleep(&(struct timespec){ .tv_nsec = ms * 1000000L }, NULL);
}

enum tern_status api_batch_turn(struct api_batch *b, int wait_ms, struct api_fault *f)
{
    const bool alone = b->n_submitted == b->n_ended + 1;
    bool any = false;
    uint32_t first = b->n;
    enum tern_status st = submit(b, f);

    if (st)
        return st;
    for (uint32_t i = 0; i < b->n_submitted; i++) {
        if (!b->jobs[i])
            continue;
        any |= look(b, i, 0);
        if (b->jobs[i] && first == b->n)
            first = i;
    }
    if (!any && first == b->n && b->n_ended < b->n)
        nap(wait_ms);
    else if (!any && first < b->n)
        (void)look(b, first, alone || wait_ms < SHARED_WAIT_MS ? wait_ms : SHARED_WAIT_MS);
    if (b->no_memory)
        return api_fault_set(f, TERN_ERR_MEMORY, NULL, NULL, "No memory for the answer.");
    return b->n_ended == b->n ? TERN_END : TERN_OK;
}

void api_batch_end(struct api_batch *b)
{
    for (uint32_t i = 0; b->jobs && i < b->n_submitted; i++)
        if (b->jobs[i])
            job_free(&b->jobs[i]);
    free(b->jobs);
    memset(b, 0, sizeof *b);
}
