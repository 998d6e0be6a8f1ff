/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `tern convert`: model files.  So far those that need no source: synthetic ones.
 */
#include "coordinator/commands.h"
#include "coordinator/engine_options.h"
#include "coordinator/interrupt.h"
#include "coordinator/synthetic_file.h"
#include "engine/option.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sysexits.h>

enum { OPT_SYNTHETIC = ENGINE_OPT_LAST, OPT_LAYERS, OPT_SEED, OPT_TYPE, OPT_EMBD, OPT_FORCE };

static const struct option longs[] = {
    { "synthetic", required_argument, NULL, OPT_SYNTHETIC },
    { "output", required_argument, NULL, 'o' },
    { "layers", required_argument, NULL, OPT_LAYERS },
    { "seed", required_argument, NULL, OPT_SEED },
    { "type", required_argument, NULL, OPT_TYPE },
    { "embd-type", required_argument, NULL, OPT_EMBD },
    { "ctx-size", required_argument, NULL, 'c' },
    { "threads", required_argument, NULL, 't' },
    { "force", no_argument, NULL, OPT_FORCE },
    { "quiet", no_argument, NULL, 'q' },
    { "help", no_argument, NULL, 'h' },
    { NULL, 0, NULL, 0 },
};

static const char help[] =
    "tern convert: writes model files.\n"
    "\n"
    "usage: tern convert --synthetic SHAPE -o FILE [options]\n"
    "\n"
    "A synthetic model has random ternary weights, 40 % of them zero, a vocabulary of the right size\n"
    "whose tokens mean nothing, and scales that keep activations finite: it computes like the real model\n"
    "and writes nonsense.  A shape named after a model has that model's architecture; sizes alone\n"
    "(125m to 100b) are of architecture bitnet, as bitnet.cpp makes them.\n"
    "\n"
    "      --synthetic SHAPE    ";

static const char help_options[] =
    "\n"
    "  -o, --output FILE         where to; written beside it and renamed when whole\n"
    "      --layers A-B          a slice: these layers alone, for workers\n"
    "      --seed N              the same seed gives the same weights in every type (default: 1)\n"
    "      --type TYPE           of ternary matrices: i2_s, tq1_0 or tq2_0 (default: i2_s)\n"
    "      --embd-type TYPE      of embedding and head: f32, f16, bf16, q8_0, q6_k, q4_0 or q4_k\n"
    "                            (default: f16)\n"
    "  -c, --ctx-size N          positions it claims to be trained with (default: the model's own)\n"
    "  -t, --threads N           (default: all CPUs this process may use)\n"
    "      --force               replace FILE\n"
    "  -q, --quiet               no progress\n"
    "  -h, --help                this text\n";

struct options {
    const char *shape, *output, *layers;
    struct tern_synthetic synthetic;
    uint32_t type, embd, ctx; /* UINT32_MAX, 0: the shape's own */
    uint64_t seed;
    struct synthetic_file_options file;
};

static void print_help(void)
{
    size_t column = 27;

    fputs(help, stdout);
    for (size_t i = 0; tern_synthetic_name(i); i++) {
        const char *name = tern_synthetic_name(i);

        if (column + 1 + strlen(name) > 96) {
            printf("\n%27s", "");
            column = 27;
        }
        printf(" %s", name);
        column += strlen(name) + 1;
    }
    fputs(help_options, stdout);
}

static enum tern_status parse_one(struct options *o, int c, const char *arg, struct tern_err *err)
{
    switch (c) {
    case OPT_SYNTHETIC: o->shape = arg; return synthetic_file_shape(arg, &o->synthetic, err);
    case 'o':
        o->output = arg;
        return *arg ? TERN_OK : TERN_FAIL(err, TERN_ERR_USAGE, "-o: the path is empty");
    case OPT_LAYERS: o->layers = arg; return TERN_OK;
    case OPT_SEED: return tern_option_u64("--seed", arg, 0, INT64_MAX, &o->seed, err);
    case OPT_TYPE: return synthetic_file_type(arg, &o->type, err);
    case OPT_EMBD: return synthetic_file_embd(arg, &o->embd, err);
    case 'c': return tern_option_u32("-c", arg, 1, TERN_MAX_CONTEXT, &o->ctx, err);
    case 't': return tern_option_u32("-t", arg, 1, TERN_MAX_THREADS, &o->file.threads, err);
    case OPT_FORCE: o->file.force = true; return TERN_OK;
    default: o->file.quiet = true; return TERN_OK;
    }
}

static enum tern_status finish(struct options *o, struct tern_err *err)
{
    struct tern_synthetic *s = &o->synthetic;

    if (!o->shape)
        return TERN_FAIL(err, TERN_ERR_USAGE,
                         "what? name a shape with --synthetic SHAPE; nothing else can be converted yet");
    if (!o->output)
        return TERN_FAIL(err, TERN_ERR_USAGE, "where to? name a file with -o FILE");
    s->seed = o->seed;
    s->ternary = o->type != UINT32_MAX ? o->type : s->ternary;
    s->embd = o->embd != UINT32_MAX ? o->embd : s->embd;
    s->n_ctx = o->ctx ? o->ctx : s->n_ctx;
    s->slice = o->layers != NULL;
    return s->slice ? tern_option_layers(o->layers, o->shape, s->n_layers, &s->first, &s->last, err)
                    : TERN_OK;
}

/* TERN_END: --help was printed. */
static enum tern_status parse(int argc, char **argv, struct options *o, struct tern_err *err)
{
    enum tern_status st;
    int c;

    memset(o, 0, sizeof *o);
    o->type = o->embd = UINT32_MAX;
    o->seed = 1;
    o->file.threads = tern_option_default_threads();
    o->file.cpu = tern_cpu_detect();
    optind = 1;
    opterr = 0;
    while ((c = getopt_long(argc, argv, ":o:c:t:qh", longs, NULL)) != -1) {
        if (c == 'h') {
            print_help();
            return TERN_END;
        }
        if (c == '?' || c == ':')
            return engine_option_unknown(c, argv, err);
        if ((st = parse_one(o, c, optarg, err)))
            return st;
    }
    if (optind < argc)
        return TERN_FAIL(err, TERN_ERR_USAGE, "'%s' is not an option; the new file goes behind -o",
                         argv[optind]);
    return finish(o, err);
}

int cmd_convert(int argc, char **argv)
{
    struct options o;
    struct tern_err err;
    enum tern_status st = parse(argc, argv, &o, &err);

    if (st)
        return st == TERN_END ? EX_OK : cmd_fail("convert", &err);
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN); /* beyond a limit on file sizes, a sentence says more */
    interrupt_catch();
    st = synthetic_file_write(&o.synthetic, o.output, &o.file, &err);
    return st ? cmd_fail_or_end("convert", &err) : EX_OK;
}
