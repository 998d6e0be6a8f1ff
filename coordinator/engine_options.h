/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Options shared by every subcommand that runs a model: which file, on which machines, with which
 * arithmetic.
 *
 * A subcommand puts ENGINE_LONG_OPTIONS into its getopt_long table and ENGINE_SHORT_OPTIONS into its short
 * options, and hands every option to engine_option(), which says whether it was one of these.
 */
#ifndef TERN_COORDINATOR_ENGINE_OPTIONS_H
#define TERN_COORDINATOR_ENGINE_OPTIONS_H

#include "engine/base/limits.h"
#include "engine/base/status.h"
#include "engine/boundary.h"
#include "engine/file_option.h"
#include "engine/head.h"
#include "engine/kv.h"
#include "engine/layout_choice.h"
#include "kernels/cpu.h"
#include "kernels/pack.h"

#include <getopt.h>
#include <stdbool.h>
#include <stdint.h>

/* Rows of a prompt in one step at most, when their number is chosen by measurement: more make no stage faster
 * (engine/PERFORMANCE.md). */
#define CHUNK_MOST 256

struct engine_options {
    char model[4096]; /* filled by engine_options_finish when not given */
    const char *pre;  /* NULL: the file's */
    struct tern_file_options file;
    enum tern_layout_wish layout;
    uint32_t ctx;     /* 0: not given */
    bool ctx_trained; /* -c 0: the model's own */
    unsigned threads;
    bool threads_given;
    enum tern_cpu_level cpu;
    bool cpu_given;
    enum tern_boundary wire;
    enum tern_head_mode head;
    bool no_head; /* no option: a command that wants no logits says so */
    enum tern_kv_type kv;
    uint32_t chunk;   /* prompt rows per step; 0: chosen by measurement */
    uint32_t local;   /* child processes; 0: none */
    uint32_t n_split; /* layers of each of them; 0: even, or as measured */
    uint32_t split[TERN_MAX_WORKERS];
    bool split_measured;
    const char *cluster, *key; /* files; both or neither */
    uint32_t in_flight;        /* steps on their way at once; 0: the pipe chooses (pipe.h) */
    uint32_t dead_after_ms, step_timeout_ms;
    const char *dump_steps; /* file, or NULL: pipe_dump.h */
    bool json, quiet, verbose;
};

enum {
    ENGINE_OPT_FIRST = 1000,
    ENGINE_OPT_WIRE = ENGINE_OPT_FIRST,
    ENGINE_OPT_KV,
    ENGINE_OPT_CPU,
    ENGINE_OPT_PRE,
    ENGINE_OPT_LAYOUT,
    ENGINE_OPT_CHUNK,
    ENGINE_OPT_HEAD,
    ENGINE_OPT_LOCAL,
    ENGINE_OPT_SPLIT,
    ENGINE_OPT_CLUSTER,
    ENGINE_OPT_KEY,
    ENGINE_OPT_IN_FLIGHT,
    ENGINE_OPT_DEAD_AFTER,
    ENGINE_OPT_STEP_TIMEOUT,
    ENGINE_OPT_DUMP_STEPS,
    ENGINE_OPT_JSON,
    ENGINE_OPT_VERBOSE,
    ENGINE_OPT_LAST
};

/* clang-format off */
#define ENGINE_SHORT_OPTIONS "m:c:t:q"
#define ENGINE_LONG_OPTIONS \
    { "model", required_argument, NULL, 'm' }, { "ctx-size", required_argument, NULL, 'c' }, \
    { "threads", required_argument, NULL, 't' }, { "quiet", no_argument, NULL, 'q' }, \
    { "wire", required_argument, NULL, ENGINE_OPT_WIRE }, \
    { "kv", required_argument, NULL, ENGINE_OPT_KV }, \
    { "cpu", required_argument, NULL, ENGINE_OPT_CPU }, \
    { "pre", required_argument, NULL, ENGINE_OPT_PRE }, \
    TERN_FILE_LONG_OPTIONS, \
    { "layout", required_argument, NULL, ENGINE_OPT_LAYOUT }, \
    { "chunk", required_argument, NULL, ENGINE_OPT_CHUNK }, \
    { "head", required_argument, NULL, ENGINE_OPT_HEAD }, \
    { "local", required_argument, NULL, ENGINE_OPT_LOCAL }, \
    { "split", required_argument, NULL, ENGINE_OPT_SPLIT }, \
    { "cluster", required_argument, NULL, ENGINE_OPT_CLUSTER }, \
    { "key", required_argument, NULL, ENGINE_OPT_KEY }, \
    { "in-flight", required_argument, NULL, ENGINE_OPT_IN_FLIGHT }, \
    { "dead-after", required_argument, NULL, ENGINE_OPT_DEAD_AFTER }, \
    { "step-timeout", required_argument, NULL, ENGINE_OPT_STEP_TIMEOUT }, \
    { "dump-steps", required_argument, NULL, ENGINE_OPT_DUMP_STEPS }, \
    { "json", no_argument, NULL, ENGINE_OPT_JSON }, { "verbose", no_argument, NULL, ENGINE_OPT_VERBOSE }
/* clang-format on */

/* Prints the part of --help that describes them; without sizes, -c and -t are left out: the command has its
 * own. */
void engine_options_print_help(bool with_sizes);

void engine_options_default(struct engine_options *o);

/* Takes option c (getopt_long's return) with its argument.  TERN_END when it is not one of these. */
enum tern_status engine_option(struct engine_options *o, int c, const char *arg,
                               struct tern_err *err) TERN_MUST_CHECK;

/* Checks options against each other, fills in the model's path and the number of threads, sets the log
 * level. */
enum tern_status engine_options_finish(struct engine_options *o, struct tern_err *err) TERN_MUST_CHECK;

#endif
