/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A service as its own files see it: what other threads reach with the lock, and what is the driver's alone.
 *
 * The driver computes without holding any lock.  Whoever has something for it puts it into the inbox and
 * makes wake_fd readable, which ends the driver's sleep: between steps it looks at the inbox once a turn, and
 * while it waits for a step it waits for both.
 */
#ifndef TERN_COORDINATOR_SERVE_SERVICE_INNER_H
#define TERN_COORDINATOR_SERVE_SERVICE_INNER_H

#include "coordinator/serve/job_inner.h"
#include "coordinator/serve/service.h"
#include "coordinator/serve/watch.h"

#include <stdatomic.h>

enum service_phase {
    SERVICE_OPENING, /* for the first time: service_open waits */
    SERVICE_READY,
    SERVICE_BROKEN, /* to be opened again */
    SERVICE_ENDED   /* could not be opened, or closed */
};

struct service {
    /* Does not change while it is open. */
    struct service_options o;
    struct session *session;
    struct tern_chat_choice chat;
    char name[256];

    pthread_t thread;
    int wake_fd;

    pthread_mutex_t lock; /* for the inbox */
    pthread_cond_t opened;
    enum service_phase phase;
    struct tern_err why; /* of BROKEN and ENDED */
    struct job *inbox, **inbox_end;
    uint32_t n_active; /* jobs taken and not ended */
    uint64_t n_jobs;
    bool stop;

    atomic_bool cancelled; /* some job has been */
    atomic_bool draining;

    struct job *jobs; /* the driver's: all that have not ended, newest first */
    struct watch watch;
};

void *service_main(void *service); /* the driver */

/* A job has been cancelled: the driver looks for it.  Any thread. */
void service_note_cancel(struct service *s);

#endif
