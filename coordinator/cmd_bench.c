/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `tern bench`: one session after the other, rows as they come.
 */
#include "coordinator/bench.h"
#include "coordinator/bench_kernels.h"
#include "coordinator/bench_streams.h"
#include "coordinator/commands.h"
#include "coordinator/interrupt.h"
#include "engine/option.h"

#include <signal.h>
#include <stdlib.h>
#include <sysexits.h>
#include <unistd.h>

static enum tern_status take_row(void *arg, const struct bench_session *s, const struct bench_result *r,
                                 struct tern_err *err)
{
    return bench_print_row(arg, s, r, err);
}

static enum tern_status all_sessions(struct bench_options *o, struct bench_print *print,
                                     struct bench_session *s, struct tern_err *err)
{
    const struct bench_sink sink = { take_row, print };
    struct bench_probe *probe = NULL;
    enum tern_status st = bench_probe_new(&probe, err);

    for (uint32_t i = 0; i < o->threads.n && !st; i++) {
        o->engine.threads = o->threads.v[i];
        if (!(st = bench_run(o, probe, &sink, s, err)))
            bench_print_session(print, s);
    }
    bench_probe_free(&probe);
    return st ? st : bench_print_end(print, err);
}

static enum tern_status measured(struct bench_options *o, struct tern_err *err)
{
    struct bench_session *s = calloc(1, sizeof *s);
    struct bench_print *print = NULL;
    enum tern_status st =
        s ? bench_print_new(o, &print, err) : TERN_FAIL(err, TERN_ERR_MEMORY, "no memory to start");

    if (!st)
        st = all_sessions(o, print, s, err);
    bench_print_free(&print);
    free(s);
    return st;
}

static enum tern_status take_streams(void *arg, const struct bench_streams_session *s,
                                     const struct bench_streams_result *r, struct tern_err *err)
{
    return bench_streams_print_row(arg, s, r, err);
}

static enum tern_status streams(struct bench_options *o, struct tern_err *err)
{
    struct bench_streams_session *s = calloc(1, sizeof *s);
    struct bench_print *print = NULL;
    enum tern_status st =
        s ? bench_print_new(o, &print, err) : TERN_FAIL(err, TERN_ERR_MEMORY, "no memory to start");
    const struct bench_streams_sink sink = { take_streams, print };

    for (uint32_t i = 0; i < o->threads.n && !st; i++) {
        o->engine.threads = o->threads.v[i];
        if (!(st = bench_streams_run(o, &sink, s, err)))
            bench_streams_print_session(print, s);
    }
    if (!st)
        st = bench_print_end(print, err);
    bench_print_free(&print);
    free(s);
    return st;
}

/* With a model of its own, which goes away whatever happens. */
static enum tern_status with_model(struct bench_options *o, struct tern_err *err)
{
    const struct synthetic_file_options fo = { tern_option_default_threads(), tern_cpu_detect(), false,
                                               o->engine.quiet };
    enum tern_status st;

    if (o->shape &&
        (st = synthetic_file_temporary(&o->synthetic, &fo, o->engine.model, sizeof o->engine.model, err)))
        return st;
    st = o->n_stream_tests ? streams(o, err) : measured(o, err);
    if (o->shape)
        (void)unlink(o->engine.model);
    return st;
}

int cmd_bench(int argc, char **argv)
{
    struct bench_options *o = calloc(1, sizeof *o);
    struct tern_err err;
    enum tern_status st;
    int code;

    if (!o)
        st = TERN_FAIL(&err, TERN_ERR_MEMORY, "no memory to start");
    else if ((st = bench_options_parse(argc, argv, o, &err)) == TERN_END) {
        free(o);
        return EX_OK;
    }
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN); /* else a limit on file sizes leaves --synthetic's file behind */
    if (!st) {
        interrupt_catch();
        st = o->kernels ? bench_kernels(o, &err) : with_model(o, &err);
    }
    free(o);
    code = st ? cmd_fail_or_end("bench", &err) : EX_OK;
    return code;
}
