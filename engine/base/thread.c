/* SPDX-License-Identifier: Apache-2.0 */
/* Asking for slices by sched_setattr(2): see thread.h. */
#include "engine/base/thread.h"

#include <linux/sched.h>
#include <linux/sched/types.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define BRIEF_NS 100000 /* the shortest slice there is */

void tern_thread_set_kind(enum tern_thread_kind kind)
{
    struct sched_attr a;

    memset(&a, 0, sizeof a);
    /* As it is, but for the slice: a niceness that the user chose stays. */
    if (syscall(SYS_sched_getattr, 0, &a, sizeof a, 0) != 0)
        return;
    if (a.sched_policy != SCHED_NORMAL && a.sched_policy != SCHED_BATCH)
        return;
    a.sched_runtime = kind == TERN_THREAD_BRIEF ? BRIEF_NS : 0;
    (void)syscall(SYS_sched_setattr, 0, &a, 0);
}
