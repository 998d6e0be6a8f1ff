/* SPDX-License-Identifier: Apache-2.0 */
/* The command line of `tern bench`, in the manner of llama-bench. */
#include "coordinator/bench.h"

#include "coordinator/commands.h"
#include "coordinator/option_habits.h"
#include "engine/option.h"

#include <stdio.h>
#include <string.h>

enum { OPT_PG = ENGINE_OPT_LAST, OPT_SYNTHETIC, OPT_TYPE, OPT_EMBD, OPT_KERNELS, OPT_STREAMS };

static const struct option longs[] = {
    ENGINE_LONG_OPTIONS,
    { "n-prompt", required_argument, NULL, 'p' },
    { "n-gen", required_argument, NULL, 'n' },
    { "n-depth", required_argument, NULL, 'd' },
    { "pg", required_argument, NULL, OPT_PG },
    { "synthetic", required_argument, NULL, OPT_SYNTHETIC },
    { "kernels", no_argument, NULL, OPT_KERNELS },
    { "streams", required_argument, NULL, OPT_STREAMS },
    { "type", required_argument, NULL, OPT_TYPE },
    { "embd-type", required_argument, NULL, OPT_EMBD },
    { "sequences", required_argument, NULL, 'b' },
    { "repetitions", required_argument, NULL, 'r' },
    { "output", required_argument, NULL, 'o' },
    { "help", no_argument, NULL, 'h' },
    { NULL, 0, NULL, 0 },
};

static const char help[] =
    "tern bench: measures how fast a model runs here, and how near that is to what the machine can do.\n"
    "\n"
    "usage: tern bench [-m FILE | --synthetic SHAPE] [options]\n"
    "\n"
    "      --synthetic SHAPE     a model of this shape (see `tern convert --help`), written to $TMPDIR or\n"
    "                            /var/tmp and removed afterwards; --type and --embd-type as there\n"
    "\n"
    "What to measure; lists are separated by commas, and an option may be repeated\n"
    "  -p, --n-prompt N,...      prompts of N tokens; 0: none (default: 512)\n"
    "  -n, --n-gen N,...         N tokens one after the other; 0: none (default: 128)\n"
    "      -pg P,N               a prompt of P tokens and N tokens behind it, as one test\n"
    "  -d, --n-depth N,...       positions that are there before the clock starts (default: 0)\n"
    "  -b, --sequences N,...     sequences that generate at once, 1 to 32 (default: 1)\n"
    "  -t, --threads N,...       compute threads; each number gets a session of its own\n"
    "  -r, --repetitions N       runs of each test behind a short one that does not count (default: 5)\n"
    "  -o, --output md|csv|json  the form of the results on stdout (default: md); --json is -o json\n"
    "\n"
    "      --kernels             instead of a model every op of the kernel table alone, on one thread, at\n"
    "                            each level (--cpu A,B,...; default: all that this machine has): time of\n"
    "                            the shape, and share of the bandwidth (data from memory) or int8 peak,\n"
    "                            whichever is nearer; of the other options it takes -o and --json\n"
    "\n"
    "Columns\n"
    "  model, size, params       file, its size, weights in it\n"
    "  level, layout, head, kv   instruction set; how ternary weights lie in memory; type of the head and\n"
    "                            how it is read; what the KV cache holds\n"
    "  wire, threads, workers    rounding between layers; threads of each process; worker processes\n"
    "                            (0: everything in this one)\n"
    "  test                      ppP: prompt of P tokens; tgN: N tokens; @ dD: behind D positions;\n"
    "                            x B seqs: in each of B sequences at once\n"
    "  t/s                       tokens per second, mean and standard deviation; -o json has every run\n"
    "  MB/token                  bytes that one generated token reads: ternary weights, head, and the KV\n"
    "                            cache at the mean position; weights are shared among sequences\n"
    "  limit                     share of what the machine could do, and what bounds it:\n"
    "                            read  (tg): bytes per token x t/s / read bandwidth\n"
    "                            int8  (pp): multiply-adds of the ternary matrices x t/s / int8 peak, so\n"
    "                            attention and all else count as loss\n"
    "                            rows, int8 (B seqs): t/s / the smaller of B times one sequence and\n"
    "                            int8 peak / multiply-adds of a token, head included\n"
    "                            both  (-pg): the time that pp and tg would need at their limits / time\n"
    "\n"
    "Bandwidth (plain reads far beyond the caches) and int8 peak (the level's fastest multiply-adds, from\n"
    "registers) are measured in the same run, with the same threads, around every sample; the second\n"
    "table has their medians and extremes (no peak: the level has no probe for it).  With --local the\n"
    "threads are those of one worker, since for one sequence one stage works at a time; with --cluster\n"
    "other machines compute and no share is given.\n"
    "load: from opening the file until the first step may go; first token: until that of a prompt of one.\n"
    "\n";

static const char help_streams[] =
    "Many streams at once, instead of all that (--local N, --cluster FILE or in this process)\n"
    "      --streams S,...       S sequences generate at once, each -n tokens (default: 64) behind a\n"
    "                            prompt of its own of -d tokens (default: 16); measured while all do\n"
    "  -p N,...                  also: one prompt of N tokens while S sequences generate; with -n 0 only\n"
    "                            that, and S may be 0\n"
    "  t/s, a stream             tokens per second of all streams and of one; -r: 1 unless given\n"
    "  ttft, itl                 ms from the start of all to a stream's first token; from token to token\n"
    "  rows, in flight           streams in one step; steps on their way, mean\n"
    "  head                      share of the time in which the head and the sampler were at work\n"
    "  idle, empty               of each stage: share of the time not computing; with nothing to compute\n"
    "  chunks, ideal, fill       steps that the prompt went in; n / (n + stages - 1) for n of them; share\n"
    "                            of the time in which stages computed\n"
    "  chunk, trip, delay        ms of a chunk in the slowest stage and in all; how much later than\n"
    "                            before the prompt tokens of the streams came\n"
    "\n";

static const char help_end[] = "  -h, --help                this text\n"
                               "\n"
                               "Examples\n"
                               "  tern bench -m model.gguf -t 1,2,4\n"
                               "  tern bench --synthetic 2b4t -p 512 -n 64 -r 3\n"
                               "  tern bench -m model.gguf --local 2 --streams 1,4,16\n";

/* Comma-separated numbers, added behind those that are there. */
static enum tern_status add_list(const char *option, const char *text, uint32_t min, uint32_t max,
                                 struct bench_list *l, struct tern_err *err)
{
    char word[16];
    enum tern_status st;

    for (const char *p = text;;) {
        size_t len = strcspn(p, ",");

        if (len == 0 || len >= sizeof word)
            return TERN_FAIL(err, TERN_ERR_USAGE, "%s: '%s' is not a list of numbers such as 1,2", option,
                             text);
        if (l->n == BENCH_MAX_LIST)
            return TERN_FAIL(err, TERN_ERR_LIMIT, "%s: more than %d values", option, BENCH_MAX_LIST);
        memcpy(word, p, len);
        word[len] = '\0';
        if ((st = tern_option_u32(option, word, min, max, &l->v[l->n], err)))
            return st;
        l->n++;
        if (p[len] == '\0')
            return TERN_OK;
        p += len + 1;
    }
}

struct lists {
    struct bench_list prompt, gen, depth, seqs, streams, pg; /* pg: P, N, P, N, ... */
    const char *shape, *cpu;
    bool has_type, has_embd;
    uint32_t type, embd;
};

static enum tern_status parse_format(const char *arg, enum bench_format *out, struct tern_err *err)
{
    static const char *const names[] = { "md", "csv", "json" };

    for (int i = 0; i < 3; i++)
        if (strcmp(arg, names[i]) == 0) {
            *out = (enum bench_format)i;
            return TERN_OK;
        }
    return TERN_FAIL(err, TERN_ERR_USAGE, "-o: '%s' is not md, csv or json", arg);
}

static enum tern_status parse_pg(struct bench_list *l, const char *arg, struct tern_err *err)
{
    uint32_t before = l->n;
    enum tern_status st = add_list("-pg", arg, 1, TERN_MAX_CONTEXT / 4, l, err);

    if (st)
        return st;
    return l->n == before + 2
               ? TERN_OK
               : TERN_FAIL(err, TERN_ERR_USAGE, "-pg: '%s' is not two numbers such as 512,128", arg);
}

static enum tern_status parse_one(struct bench_options *o, struct lists *l, int c, const char *arg,
                                  struct tern_err *err)
{
    enum tern_status st;

    switch (c) {
    case 'p': return add_list("-p", arg, 0, TERN_MAX_CONTEXT / 4, &l->prompt, err);
    case 'n': return add_list("-n", arg, 0, TERN_MAX_CONTEXT / 4, &l->gen, err);
    case 'd': return add_list("-d", arg, 0, TERN_MAX_CONTEXT / 4, &l->depth, err);
    case 'b': return add_list("-b", arg, 1, BENCH_MAX_SEQS, &l->seqs, err);
    case 't': return add_list("-t", arg, 1, TERN_MAX_THREADS, &o->threads, err);
    case 'c':
        return TERN_FAIL(err, TERN_ERR_USAGE, "-c: the context follows from -p, -n and -d; leave it out");
    case 'r': return tern_option_u32("-r", arg, 1, BENCH_MAX_REPS, &o->reps, err);
    case 'o': return parse_format(arg, &o->format, err);
    case OPT_SYNTHETIC: l->shape = arg; return TERN_OK;
    case OPT_KERNELS: o->kernels = true; return TERN_OK;
    case ENGINE_OPT_CPU: l->cpu = arg; return TERN_OK;
    case OPT_TYPE: l->has_type = true; return synthetic_file_type(arg, &l->type, err);
    case OPT_EMBD: l->has_embd = true; return synthetic_file_embd("--embd-type", arg, &l->embd, err);
    case OPT_PG: return parse_pg(&l->pg, arg, err);
    case OPT_STREAMS: return add_list("--streams", arg, 0, BENCH_MAX_STREAMS, &l->streams, err);
    default:
        st = engine_option(&o->engine, c, arg, err);
        TERN_BUG_IF(st == TERN_END);
        return st;
    }
}

/* -- lists to tests -------------------------------------------------------------------------------------- */

static enum tern_status add_test(struct bench_options *o, struct bench_test t, struct tern_err *err)
{
    if (o->n_tests == BENCH_MAX_TESTS)
        return TERN_FAIL(err, TERN_ERR_LIMIT, "the lists make more than %d tests", BENCH_MAX_TESTS);
    o->tests[o->n_tests++] = t;
    return TERN_OK;
}

static enum tern_status add_tests_at(struct bench_options *o, const struct lists *l, uint32_t depth,
                                     struct tern_err *err)
{
    enum tern_status st = TERN_OK;

    for (uint32_t i = 0; i < l->prompt.n && !st; i++)
        if (l->prompt.v[i])
            st = add_test(o, (struct bench_test){ l->prompt.v[i], 0, depth, 1 }, err);
    for (uint32_t i = 0; i < l->gen.n && !st; i++)
        for (uint32_t b = 0; l->gen.v[i] && b < l->seqs.n && !st; b++)
            st = add_test(o, (struct bench_test){ 0, l->gen.v[i], depth, l->seqs.v[b] }, err);
    for (uint32_t i = 0; i + 1 < l->pg.n && !st; i += 2)
        st = add_test(o, (struct bench_test){ l->pg.v[i], l->pg.v[i + 1], depth, 1 }, err);
    return st;
}

static void default_list(struct bench_list *l, uint32_t v)
{
    if (l->n == 0)
        *l = (struct bench_list){ 1, { v } };
}

/* One sequence goes first: it is what the others are compared with. */
static enum tern_status one_first(struct bench_list *l, struct tern_err *err)
{
    uint32_t at = 0;

    while (at < l->n && l->v[at] != 1)
        at++;
    if (at == BENCH_MAX_LIST)
        return TERN_FAIL(err, TERN_ERR_LIMIT, "-b: more than %d values, 1 included", BENCH_MAX_LIST);
    if (at == l->n)
        l->n++;
    memmove(&l->v[1], &l->v[0], at * sizeof l->v[0]);
    l->v[0] = 1;
    return TERN_OK;
}

/* --cpu: a list for --kernels, one level otherwise. */
static enum tern_status take_cpu(struct bench_options *o, const char *text, struct tern_err *err)
{
    enum tern_cpu_level level;
    enum tern_status st;
    char word[16];

    if (!o->kernels) {
        o->engine.cpu_given = text != NULL;
        return text ? tern_option_cpu(text, &o->engine.cpu, err) : TERN_OK;
    }
    for (int i = 0; !text && i < TERN_CPU_N_LEVELS; i++)
        o->levels |= (unsigned)tern_cpu_supports((enum tern_cpu_level)i) << i;
    while (text) {
        size_t len = strcspn(text, ",");

        if (len >= sizeof word)
            return TERN_FAIL(err, TERN_ERR_USAGE, "--cpu: '%.40s' is not a list of levels", text);
        memcpy(word, text, len);
        word[len] = '\0';
        if ((st = tern_option_cpu(word, &level, err)))
            return st;
        o->levels |= 1u << level;
        text = text[len] ? text + len + 1 : NULL;
    }
    return TERN_OK;
}

/* Which model: a file, or a shape to make one of. */
static enum tern_status take_shape(struct bench_options *o, const struct lists *l, struct tern_err *err)
{
    enum tern_status st;

    if (!l->shape && (l->has_type || l->has_embd))
        return TERN_FAIL(err, TERN_ERR_USAGE, "--type and --embd-type go with --synthetic SHAPE");
    if (!l->shape)
        return TERN_OK;
    if (*o->engine.model)
        return TERN_FAIL(err, TERN_ERR_USAGE, "-m and --synthetic exclude each other; give one of them");
    if (o->engine.cluster)
        return TERN_FAIL(err, TERN_ERR_USAGE,
                         "--synthetic makes a file here, which a cluster does not have; make one with `tern "
                         "convert`, copy it to the workers and name it with -m");
    if ((st = synthetic_file_shape(l->shape, &o->synthetic, err)))
        return st;
    o->shape = o->synthetic.name;
    o->synthetic.ternary = l->has_type ? l->type : o->synthetic.ternary;
    o->synthetic.embd = l->has_embd ? l->embd : o->synthetic.embd;
    snprintf(o->engine.model, sizeof o->engine.model, "%s", o->shape); /* until the file is there */
    return TERN_OK;
}

/* --kernels has its own shapes, and one thread. */
static enum tern_status kernels_alone(const struct bench_options *o, const struct lists *l,
                                      struct tern_err *err)
{
    if (*o->engine.model || l->shape || l->has_type || l->has_embd)
        return TERN_FAIL(err, TERN_ERR_USAGE,
                         "--kernels takes no model, its shapes are fixed: leave out -m and --synthetic");
    if (o->threads.n || l->prompt.n || l->gen.n || l->pg.n || l->depth.n || l->seqs.n || l->streams.n ||
        o->reps)
        return TERN_FAIL(err, TERN_ERR_USAGE,
                         "--kernels measures ops on one thread: leave out -p, -n, -pg, -d, -b, -t, -r and "
                         "--streams");
    if (o->engine.local || o->engine.cluster)
        return TERN_FAIL(err, TERN_ERR_USAGE,
                         "--kernels measures ops in this process: leave out --local and --cluster");
    return TERN_OK;
}

/* -- streams --------------------------------------------------------------------------------------------- */

static enum tern_status add_streams(struct bench_options *o, uint32_t n_streams, uint32_t n_prompt,
                                    uint32_t n_gen, struct tern_err *err)
{
    if (o->n_stream_tests == BENCH_MAX_TESTS)
        return TERN_FAIL(err, TERN_ERR_LIMIT, "the lists make more than %d tests", BENCH_MAX_TESTS);
    o->stream_tests[o->n_stream_tests++] = (struct bench_streams_test){ n_streams, n_prompt, n_gen };
    return TERN_OK;
}

/* Tests of streams alone first, then prompts among them. */
static enum tern_status stream_tests(struct bench_options *o, struct lists *l, struct tern_err *err)
{
    enum tern_status st = TERN_OK;

    if (l->pg.n || l->seqs.n || l->depth.n > 1)
        return TERN_FAIL(err, TERN_ERR_USAGE, "--streams takes no -pg, no -b and only one -d");
    default_list(&l->prompt, 0);
    default_list(&l->gen, 64);
    o->stream_prompt = l->depth.n && l->depth.v[0] ? l->depth.v[0] : 16;
    o->reps = o->reps ? o->reps : 1;
    for (uint32_t i = 0; i < l->gen.n && !st; i++)
        for (uint32_t k = 0; l->gen.v[i] && k < l->streams.n && !st; k++)
            if (l->streams.v[k])
                st = add_streams(o, l->streams.v[k], 0, l->gen.v[i], err);
    for (uint32_t i = 0; i < l->prompt.n && !st; i++)
        for (uint32_t k = 0; l->prompt.v[i] && k < l->streams.n && !st; k++)
            st = add_streams(o, l->streams.v[k], l->prompt.v[i], 0, err);
    if (!st && o->n_stream_tests == 0)
        st = TERN_FAIL(err, TERN_ERR_USAGE,
                       "nothing to measure: --streams 0 goes with -p N, a prompt of N tokens");
    return st;
}

static enum tern_status measure_tests(struct bench_options *o, struct lists *l, struct tern_err *err)
{
    enum tern_status st;

    /* -pg alone measures nothing else. */
    if (!l->pg.n || l->prompt.n || l->gen.n) {
        default_list(&l->prompt, 512);
        default_list(&l->gen, 128);
    }
    o->reps = o->reps ? o->reps : 5;
    default_list(&l->depth, 0);
    if ((st = one_first(&l->seqs, err)))
        return st;
    for (uint32_t i = 0; i < l->depth.n && !st; i++)
        st = add_tests_at(o, l, l->depth.v[i], err);
    if (!st && o->n_tests == 0)
        st = TERN_FAIL(err, TERN_ERR_USAGE, "nothing to measure: -p and -n are both 0");
    return st;
}

static enum tern_status finish(struct bench_options *o, struct lists *l, struct tern_err *err)
{
    enum tern_status st;

    if ((st = take_cpu(o, l->cpu, err)))
        return st;
    if (o->engine.json)
        o->format = BENCH_JSON;
    if (o->kernels)
        return kernels_alone(o, l, err);
    if ((st = take_shape(o, l, err)))
        return st;
    if ((st = l->streams.n ? stream_tests(o, l, err) : measure_tests(o, l, err)))
        return st;
    if ((st = engine_options_finish(&o->engine, err)))
        return st;
    default_list(&o->threads, o->engine.threads);
    o->engine.threads_given = true; /* a worker gets what is said, not a share of it */
    return TERN_OK;
}

enum tern_status bench_options_parse(int argc, char **argv, struct bench_options *o, struct tern_err *err)
{
    static char long_pg[] = "--pg";
    struct lists l = { .shape = NULL };
    enum tern_status st;
    int c;

    memset(o, 0, sizeof *o);
    engine_options_default(&o->engine);
    optind = 1;
    for (int i = 1; i < argc; i++)
        if (strcmp(argv[i], "-pg") == 0) /* llama-bench's spelling; getopt would take it for -p g */
            argv[i] = long_pg;
    while ((c = option_next(argc, argv, ":" ENGINE_SHORT_OPTIONS "p:n:d:b:r:o:h", longs, NULL, err)) != -1) {
        if (c == 'h') {
            fputs(help, stdout);
            fputs(help_streams, stdout);
            engine_options_print_help(false);
            fputs(help_end, stdout);
            return TERN_END;
        }
        if (c == '?')
            return TERN_ERR_USAGE;
        if ((st = parse_one(o, &l, c, optarg, err)))
            return st;
    }
    if (optind < argc)
        return TERN_FAIL(err, TERN_ERR_USAGE, "'%s' is not an option; a model goes behind -m", argv[optind]);
    return finish(o, &l, err);
}
