/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The command line of `tern serve`, as data.
 */
#ifndef TERN_COORDINATOR_SERVE_SERVE_OPTIONS_H
#define TERN_COORDINATOR_SERVE_SERVE_OPTIONS_H

#include "coordinator/engine_options.h"
#include "engine/arch.h"

#define SERVE_MAX_NAMES 32 /* of --allow-host, and of --allow-origin */

struct serve_options {
    struct engine_options engine;
    const char *host;
    uint32_t port; /* 0: any */
    const char *api_key_file, *tls_cert, *tls_key;
    bool insecure_no_key;
    const char *hosts[SERVE_MAX_NAMES], *origins[SERVE_MAX_NAMES];
    uint32_t n_hosts, n_origins;
    uint32_t max_connections, max_per_client; /* 0: the server's own defaults, as for max_body */
    uint64_t max_body;
    uint32_t drain_s;
    bool no_page;
    const char *alias;       /* what the model is called, or NULL */
    const char *chat_format; /* or NULL: the model's */
    uint32_t parallel, max_queue, n_prefixes;
    bool prefixes_given;
    uint32_t max_tokens; /* of one answer; 0: the context */
    bool shift;
    uint32_t n_keep;
    bool pooling_given;
    enum tern_pooling pooling;
};

/* Parses and checks argv.  TERN_END: --help was printed. */
enum tern_status serve_options_parse(int argc, char **argv, struct serve_options *o,
                                     struct tern_err *err) TERN_MUST_CHECK;

/* An address that only this machine can reach: 127.0.0.0/8, ::1, localhost. */
bool serve_host_is_local(const char *host);

#endif
