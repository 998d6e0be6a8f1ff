/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `tern bench` as data: what is measured, what a run cost, and what the machine could have done.
 *
 * A test is n_prompt positions in one go, n_gen tokens one after the other, or one behind the other, on
 * `depth` positions that are there before the clock starts; n_seqs sequences do it at once.  Each thread
 * count gets a session of its own, and before, between and after its samples the machine's limits are taken
 * with the same threads.
 */
#ifndef TERN_COORDINATOR_BENCH_H
#define TERN_COORDINATOR_BENCH_H

#include "coordinator/bench_probe.h"
#include "coordinator/engine_options.h"
#include "coordinator/session.h"
#include "coordinator/synthetic_file.h"

#define BENCH_MAX_LIST    16 /* values of one option */
#define BENCH_MAX_TESTS   256
#define BENCH_MAX_REPS    100
#define BENCH_MAX_SEQS    32
#define BENCH_MAX_STREAMS 192

enum bench_format { BENCH_MD, BENCH_CSV, BENCH_JSON };

struct bench_list {
    uint32_t n;
    uint32_t v[BENCH_MAX_LIST];
};

struct bench_test {
    uint32_t n_prompt, n_gen, depth, n_seqs;
};

struct bench_streams_test {
    uint32_t n_streams;
    uint32_t n_prompt; /* one prompt among them; 0: none */
    uint32_t n_gen;    /* tokens of each stream; with a prompt as many as it takes */
};

struct bench_options {
    struct engine_options engine; /* threads: of the session being run */
    struct bench_list threads;
    uint32_t n_tests, reps;
    struct bench_test tests[BENCH_MAX_TESTS];
    enum bench_format format;
    const char *shape; /* make a model of this shape and remove it afterwards; NULL: engine.model is one */
    struct tern_synthetic synthetic;
    bool kernels;    /* ops alone, and no model */
    unsigned levels; /* bit i: level i; kernels only */
    /* --streams: its own tests instead of the others (bench_streams.h). */
    uint32_t n_stream_tests, stream_prompt; /* stream_prompt: tokens of each stream's own prompt */
    struct bench_streams_test stream_tests[BENCH_MAX_TESTS];
};

/* Parses and checks argv; TERN_END: --help was printed. */
enum tern_status bench_options_parse(int argc, char **argv, struct bench_options *o,
                                     struct tern_err *err) TERN_MUST_CHECK;

/* -- what a token costs (bench_cost.c) ------------------------------------------------------------------- */

struct bench_cost {
    char model[64];        /* the shape, or the file's name without folder and suffix */
    uint64_t file_bytes;   /* of the model file */
    uint64_t params;       /* weights of all matrices, norms and embeddings */
    uint64_t ternary_macs; /* multiply-adds of one position in the ternary matrices */
    uint64_t head_macs;    /* ... and in the head */
    uint64_t layer_bytes;  /* weights of all layers as they lie in memory */
    uint64_t head_bytes;   /* what one pass of the head reads */
    uint64_t kv_bytes;     /* K and V of one position, all layers, scales included */
    uint64_t kv_swa_bytes; /* ... in the layers that slide, of which a token reads `window` positions */
    uint32_t window;
    const char *layout;
    char head[32]; /* type of the tensor and how it is read: "f16 screened" */
};

/* s is connected. */
void bench_cost_of(const struct session *s, struct bench_cost *out);

/* -- one thread count (bench_run.c) ---------------------------------------------------------------------- */

struct bench_result {
    struct bench_test test;
    uint32_t threads, workers;
    double samples[BENCH_MAX_REPS]; /* [n_samples] tokens per second */
    uint32_t n_samples;
    double mean, deviation, median;
    struct bench_takes around; /* the limits: BENCH_TAKE_PASSES before the first sample and after each */
    double bytes;              /* read per token; 0: the test is not bound by reading */
    double macs;               /* multiply-adds per token */
    double share;              /* of the limit; negative: not known */
    const char *limit;         /* "read", "int8", "both", "rows" or NULL */
};

struct bench_session {
    uint32_t threads, workers;
    const char *level;
    double load_ms;  /* from opening the file to the first step */
    double first_ms; /* from opening the file to the first token of a prompt of one */
    struct bench_cost cost;
    struct bench_takes takes; /* all of this session */
};

/* Where figures go as they come; arg is the caller's. */
struct bench_sink {
    enum tern_status (*row)(void *arg, const struct bench_session *s, const struct bench_result *r,
                            struct tern_err *err);
    void *arg;
};

/* Runs all tests of o with o->engine.threads threads.  TERN_END: interrupted. */
enum tern_status bench_run(const struct bench_options *o, struct bench_probe *probe,
                           const struct bench_sink *sink, struct bench_session *out,
                           struct tern_err *err) TERN_MUST_CHECK;

/* Ids that are the same in every run; sequence k's differ from the others'. */
int32_t bench_fixed_id(uint32_t n_vocab, uint32_t k, uint32_t i);

/* "pp512", "tg128", "tg128 @ d4096", "pp512+tg128", "tg128 x 4 seqs". */
void bench_test_name(const struct bench_test *t, char out[64]);

/* -- output (bench_print.c) ------------------------------------------------------------------------------ */

/* "AMD EPYC (x86_64)". */
void bench_machine_name(char *out, size_t cap);
/* A file's name as a CSV field. */
void bench_print_quoted(const char *text);

struct bench_print;
enum tern_status bench_print_new(const struct bench_options *o, struct bench_print **out,
                                 struct tern_err *err) TERN_MUST_CHECK;
enum tern_status bench_print_row(struct bench_print *p, const struct bench_session *s,
                                 const struct bench_result *r, struct tern_err *err) TERN_MUST_CHECK;
/* After the last row of a session. */
void bench_print_session(struct bench_print *p, const struct bench_session *s);
/* After everything. */
enum tern_status bench_print_end(struct bench_print *p, struct tern_err *err) TERN_MUST_CHECK;
void bench_print_free(struct bench_print **p);

#endif
