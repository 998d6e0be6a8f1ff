/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The live picture of a cluster as `tern serve` tells it at /tern/cluster, read by those who show it in a
 * terminal.
 *
 * The server is a stranger: its object is bounded, numbers are checked, and of its words nothing reaches the
 * terminal that the terminal would obey.
 */
#ifndef TERN_COORDINATOR_CLUSTER_VIEW_H
#define TERN_COORDINATOR_CLUSTER_VIEW_H

#include "coordinator/http_client.h"
#include "engine/base/limits.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#define CLUSTER_VIEW_SILENCE_S 10 /* without a byte from the server: given up */

/* Numbers that nobody knows are NAN; times are of the server's clock. */
struct cluster_stage {
    char name[64], endpoint[128], cpu[24]; /* endpoint empty: in the server's process */
    double first, last;                    /* layers, last one included */
    double threads, memory_bytes, steps, ms_per_step, tokens_per_s, idle_share, queue_ms, rejected, silent_ms;
    bool suspect;
    bool away; /* the pipeline is not open */
};

struct cluster_hop {
    double bytes, bytes_per_s, p50_us, p99_us;
    double within_us; /* how far clocks may be off; a time that is not known is below twice as much */
};

struct cluster_slot {
    double slot, job, prompt, prompt_done, cached, tokens, ctx, seconds;
    bool prompting;
};

struct cluster_quantiles {
    double p50, p99;
};

struct cluster_view {
    char version[32], why[240]; /* why: it is not ready */
    bool ready;
    double uptime_s, now_us;
    char model[96], architecture[32], wire[16], kv[16];
    double layers, ctx, file_bytes;
    struct cluster_stage coordinator; /* name, cpu, threads, memory; ms_per_step and idle_share of the head */
    uint32_t n_stages, n_hops, n_slots;
    struct cluster_stage stages[TERN_MAX_WORKERS];
    struct cluster_hop hops[TERN_MAX_WORKERS + 1]; /* hop i leads to stage i, the last one home */
    struct cluster_slot slots[TERN_MAX_SLOTS];
    double parallel, running, waiting, max_queue, in_flight, max_in_flight, chunk, groups;
    double pages, pages_free, pages_cached, prefix_lookups, prefix_hits, prefix_tokens;
    double prompt_per_s, answer_per_s;
    double jobs, ended, cancelled, failed, refused, reopened, prompt_tokens, answer_tokens;
    struct cluster_quantiles first_token_ms, between_tokens_ms, queued_ms;
};

/* *root: the object itself, for those who want its steps; the caller's, or NULL when nobody asks. */
enum tern_status cluster_view_parse(const char *server, const char *text, size_t len,
                                    struct cluster_view *out, json_t **root,
                                    struct tern_err *err) TERN_MUST_CHECK;

/* Asks the server; path: "/tern/cluster", with a query or without. */
enum tern_status cluster_view_fetch(struct http_client *c, const char *path, struct cluster_view *out,
                                    json_t **root, struct tern_err *err) TERN_MUST_CHECK;

/* Copies text without anything a terminal would obey or be confused by: control characters, marks of writing
 * direction, broken UTF-8 become '?'. */
void cluster_view_clean(const char *text, char *out, size_t cap);

/* The server that was named, else $TERN_SERVER, else http://127.0.0.1:8080. */
const char *cluster_view_server(const char *given);

#endif
