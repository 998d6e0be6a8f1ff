/* SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/interrupt.h"

#include <signal.h>
#include <stdatomic.h>

/* Written by the handler, read by any thread. */
static atomic_int caught;

_Static_assert(ATOMIC_INT_LOCK_FREE == 2, "the handler may not wait for a lock");

static void on_signal(int sig)
{
    atomic_store(&caught, sig);
}

void interrupt_catch(void)
{
    /* SA_RESETHAND: the second one kills. */
    struct sigaction sa = { .sa_handler = on_signal, .sa_flags = (int)SA_RESETHAND };

    sigemptyset(&sa.sa_mask);
    sigaction(SIGINT, &sa, NULL);
    sigaction(SIGTERM, &sa, NULL);
}

void interrupt_outlive(void)
{
    struct sigaction sa = { .sa_handler = on_signal };

    sigemptyset(&sa.sa_mask);
    sigaction(SIGINT, &sa, NULL);
}

void interrupt_forget(void)
{
    int was = SIGINT;

    (void)atomic_compare_exchange_strong(&caught, &was, 0);
}

int interrupt_signal(void)
{
    return atomic_load(&caught);
}

enum tern_status interrupt_check(struct tern_err *err)
{
    int sig = interrupt_signal();

    return sig ? TERN_FAIL(err, TERN_END, "interrupted by signal %d", sig) : TERN_OK;
}
