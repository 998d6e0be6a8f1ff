/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How threads begin, and how the system's scheduler is to treat them.
 *
 * Threads of links work for microseconds at a time and everybody waits for them; threads that compute work
 * for milliseconds.  Linux from 6.12 on lets a thread that asked for shorter slices run at once in place of
 * one with longer slices, without any privilege; before, and by default after, a thread that computes keeps
 * its CPU for up to 3 ms while a message waits.  On older kernels asking does nothing.
 *
 * New threads inherit what their maker has.
 */
#ifndef TERN_ENGINE_BASE_THREAD_H
#define TERN_ENGINE_BASE_THREAD_H

#include <pthread.h>

/* pthread_create() of a thread that takes no signals which are for the program: those are for the thread that
 * knows what to do about them.  Those about what the thread itself does stay, SIGBUS among them
 * (engine/mapping.h). */
int tern_thread_start(pthread_t *thread, void *(*main)(void *arg), void *arg);

enum tern_thread_kind {
    TERN_THREAD_PLAIN, /* the system's default */
    TERN_THREAD_BRIEF  /* seldom runs, and then briefly */
};

/* The calling thread from now on.  That the system does not know of it is no error. */
void tern_thread_set_kind(enum tern_thread_kind kind);

#endif
