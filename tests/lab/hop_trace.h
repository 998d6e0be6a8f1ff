/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What hop_trace.c writes and lab_hops reads: moments of a large frame's way.
 */
#ifndef TERN_TESTS_LAB_HOP_TRACE_H
#define TERN_TESTS_LAB_HOP_TRACE_H

#include <stdint.h>

#define HOP_TRACE_LARGE 2000 /* bytes: a row of a large model, not a header */
#define HOP_TRACE_MAX   (1u << 18)

enum hop_kind {
    HOP_SEND_WOKEN, /* the last return of poll or epoll_wait before HOP_SEND in that thread; 0: none */
    HOP_SEND,       /* the payload is given to libzmq */
    HOP_SEND_DONE,
    HOP_TCP_SEND, /* libzmq's thread writes it to the socket */
    HOP_TCP_SEND_DONE,
    HOP_TCP_RECV,   /* libzmq's thread has read it */
    HOP_RECV_WOKEN, /* the last return of either before HOP_RECV_DONE in that thread */
    HOP_RECV_DONE,  /* we have it */
    HOP_N_KINDS
};

struct hop_record {
    uint64_t ns;
    uint64_t kind;
};

#endif
