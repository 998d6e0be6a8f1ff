/* SPDX-License-Identifier: Apache-2.0 */
/* Beginning without signals, and asking for slices by sched_setattr(2): see thread.h. */
#include "engine/base/thread.h"

#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define BRIEF_NS 100000 /* the shortest slice there is */

/* The kernel's struct sched_attr: its header and the C library's cannot be had together. */
struct attributes {
    uint32_t size, policy;
    uint64_t flags;
    int32_t nice;
    uint32_t priority;
    uint64_t runtime_ns, deadline_ns, period_ns;
    uint32_t util_min, util_max;
};

int tern_thread_start(pthread_t *thread, void *(*main)(void *arg), void *arg)
{
    static const int its_own[] = { SIGBUS, SIGSEGV, SIGFPE, SIGILL };
    sigset_t all, old;
    int rc;

    sigfillset(&all);
    for (size_t i = 0; i < sizeof its_own / sizeof its_own[0]; i++)
        sigdelset(&all, its_own[i]);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    rc = pthread_create(thread, NULL, main, arg);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    return rc;
}

void tern_thread_set_kind(enum tern_thread_kind kind)
{
    struct attributes a;

    memset(&a, 0, sizeof a);
    /* As it is, but for the slice: a niceness that the user chose stays. */
    if (syscall(SYS_sched_getattr, 0, &a, sizeof a, 0) != 0)
        return;
    if (a.policy != SCHED_OTHER && a.policy != SCHED_BATCH)
        return;
    a.runtime_ns = kind == TERN_THREAD_BRIEF ? BRIEF_NS : 0;
    (void)syscall(SYS_sched_setattr, 0, &a, 0);
}
