/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A server in a process of its own, for tests that kill it or measure it.
 */
#ifndef TERN_TESTS_UNIT_LINK_CHILD_H
#define TERN_TESTS_UNIT_LINK_CHILD_H

#include "proto/link_impl.h"

#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

/* In the child: writes its endpoint to the parent, then does what ternd's loop does with its server, and
 * nothing else: answers every message, until it is killed. */
static inline _Noreturn void link_child_serve(const struct tern_key *key, struct tern_allow *allow,
                                              int to_parent, const char *answer)
{
    struct tern_link_context *ctx;
    struct tern_link_message m;
    struct tern_server *s;
    struct tern_err err;

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (tern_link_context_new(&ctx, &err) || tern_server_open(ctx, "127.0.0.1:0", key, allow, &s, &err) ||
        write(to_parent, tern_server_endpoint(s), strlen(tern_server_endpoint(s))) < 0)
        _exit(1);
    tern_link_message_init(&m);
    for (;;) {
        struct pollfd fds[TERN_SERVER_FDS];

        if (!tern_server_poll_fds(s, fds))
            poll(fds, TERN_SERVER_FDS, 100);
        tern_server_pump(s);
        while (tern_server_recv(s, &m, &err) == TERN_OK)
            if (tern_server_send(s, m.route, m.route_len, answer, strlen(answer), NULL, 0, &err))
                _exit(2);
    }
}

#endif
