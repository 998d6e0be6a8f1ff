/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `tern convert`: model files, from other model files or from nothing (synthetic ones).
 */
#include "coordinator/commands.h"
#include "coordinator/convert_file.h"
#include "coordinator/engine_options.h"
#include "coordinator/interrupt.h"
#include "coordinator/option_habits.h"
#include "coordinator/synthetic_file.h"
#include "engine/option.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sysexits.h>

enum {
    OPT_SYNTHETIC = ENGINE_OPT_LAST,
    OPT_LAYERS,
    OPT_SEED,
    OPT_TYPE,
    OPT_HEAD,
    OPT_EMBD,
    OPT_PRE,
    OPT_FORCE
};

static const struct option longs[] = {
    { "synthetic", required_argument, NULL, OPT_SYNTHETIC },
    { "output", required_argument, NULL, 'o' },
    { "layers", required_argument, NULL, OPT_LAYERS },
    { "seed", required_argument, NULL, OPT_SEED },
    { "type", required_argument, NULL, OPT_TYPE },
    { "head", required_argument, NULL, OPT_HEAD },
    { "embd-type", required_argument, NULL, OPT_EMBD },
    { "pre", required_argument, NULL, OPT_PRE },
    TERN_FILE_LONG_OPTIONS,
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
    "usage: tern convert MODEL -o FILE [options]\n"
    "       tern convert --synthetic SHAPE -o FILE [options]\n"
    "\n"
    "MODEL is whatever `tern run -m` takes.  The new file is one GGUF with its ternary matrices in one\n"
    "type; it is read back and compared with its source before it gets its name.\n"
    "\n"
    "  -o, --output FILE         where to; written beside it and renamed when whole\n"
    "      --type TYPE           of ternary matrices: i2_s (the default), tq1_0 or tq2_0 (scales rounded\n"
    "                            to f16, with a note of the exact ones that Tern reads), f16 or f32\n"
    "                            (floats), or keep (layers stay byte for byte)\n"
    "      --head TYPE           of embedding and head: f32, f16, bf16, q8_0, q6_k, q4_0, q4_k or tq2_0\n"
    "                            (default: as they are, bf16 of a folder as f16)\n"
    "      --layers A-B          a slice: these layers alone, for workers; without --type they stay as\n"
    "                            they are, so that they fit a coordinator with the whole file (a folder's\n"
    "                            become i2_s and fit one with the folder converted)\n"
    "      --pre NAME            the pre-tokenizer to write (default: the model's own; where the file\n"
    "                            names none, the one Tern would choose)\n";

static const char help_rest[] =
    "  -t, --threads N           (default: all CPUs this process may use)\n"
    "      --force               replace FILE\n"
    "  -q, --quiet               no progress\n"
    "  -h, --help                this text\n"
    "\n"
    "A synthetic model has random ternary weights, 40 % of them zero, a vocabulary of the right size\n"
    "whose tokens mean nothing, and scales that keep activations finite: it computes like the real model\n"
    "and writes nonsense.  A shape named after a model has that model's architecture; sizes alone\n"
    "(125m to 100b) are of architecture bitnet, as bitnet.cpp makes them.  Of the options above --type\n"
    "(i2_s, tq1_0, tq2_0), --head (default: f16; also called --embd-type), --layers, -t, --force and -q\n"
    "apply, and:\n"
    "\n"
    "      --synthetic SHAPE    ";

static const char help_synthetic[] =
    "\n"
    "      --seed N              the same seed gives the same weights in every type (default: 1)\n"
    "  -c, --ctx-size N          positions it claims to be trained with (default: the model's own)\n";

struct options {
    const char *shape;
    struct tern_synthetic synthetic;
    uint32_t type, head, ctx; /* UINT32_MAX, 0: not given */
    uint64_t seed;
    const char *for_model, *for_synthetic; /* an option that only one of the two has, or NULL */
    struct convert_file_options to;        /* input: NULL with a shape */
};

static void print_help(void)
{
    size_t column = 27;

    fputs(help, stdout);
    fputs(tern_file_option_help, stdout);
    fputs(help_rest, stdout);
    for (size_t i = 0; tern_synthetic_name(i); i++) {
        const char *name = tern_synthetic_name(i);

        if (column + 1 + strlen(name) > 96) {
            printf("\n%27s", "");
            column = 27;
        }
        printf(" %s", name);
        column += strlen(name) + 1;
    }
    fputs(help_synthetic, stdout);
}

static enum tern_status parse_more(struct options *o, int c, const char *arg, struct tern_err *err)
{
    enum tern_status st;

    switch (c) {
    case OPT_PRE:
        o->for_model = "pre";
        o->to.to.pre = arg;
        return TERN_OK;
    case OPT_SEED:
        o->for_synthetic = "--seed";
        return tern_option_u64("--seed", arg, 0, INT64_MAX, &o->seed, err);
    case 'c': o->for_synthetic = "-c"; return tern_option_u32("-c", arg, 1, TERN_MAX_CONTEXT, &o->ctx, err);
    default:
        st = tern_file_option(&o->to.file, c, arg, err);
        for (size_t i = 0; st == TERN_OK && longs[i].name; i++)
            if (longs[i].val == c)
                o->for_model = longs[i].name;
        TERN_BUG_IF(st == TERN_END);
        return st;
    }
}

static enum tern_status parse_one(struct options *o, int c, const char *arg, struct tern_err *err)
{
    switch (c) {
    case OPT_SYNTHETIC: o->shape = arg; return synthetic_file_shape(arg, &o->synthetic, err);
    case 'o':
        o->to.output = arg;
        return *arg ? TERN_OK : TERN_FAIL(err, TERN_ERR_USAGE, "-o: the path is empty");
    case OPT_LAYERS: o->to.layers = arg; return TERN_OK;
    case OPT_TYPE: o->to.type_given = true; return convert_file_type(arg, &o->type, err);
    case OPT_HEAD: return synthetic_file_embd("--head", arg, &o->head, err);
    case OPT_EMBD: return synthetic_file_embd("--embd-type", arg, &o->head, err);
    case 't': return tern_option_u32("-t", arg, 1, TERN_MAX_THREADS, &o->to.threads, err);
    case OPT_FORCE: o->to.force = true; return TERN_OK;
    case 'q': o->to.quiet = true; return TERN_OK;
    default: return parse_more(o, c, arg, err);
    }
}

static enum tern_status finish_synthetic(struct options *o, struct tern_err *err)
{
    struct tern_synthetic *s = &o->synthetic;

    if (o->for_model)
        return TERN_FAIL(err, TERN_ERR_USAGE, "--%s is for models that exist, and --synthetic makes one",
                         o->for_model);
    if (o->to.type_given && o->type != TERN_TYPE_I2_S && o->type != TERN_TYPE_TQ1_0 &&
        o->type != TERN_TYPE_TQ2_0)
        return TERN_FAIL(err, TERN_ERR_USAGE,
                         "--type: a synthetic model is made as i2_s, tq1_0 or tq2_0; convert it afterwards");
    s->seed = o->seed;
    s->ternary = o->to.type_given ? o->type : s->ternary;
    s->embd = o->head != UINT32_MAX ? o->head : s->embd;
    s->n_ctx = o->ctx ? o->ctx : s->n_ctx;
    s->slice = o->to.layers != NULL;
    return s->slice ? tern_option_layers(o->to.layers, o->shape, s->n_layers, &s->first, &s->last, err)
                    : TERN_OK;
}

static enum tern_status finish(struct options *o, struct tern_err *err)
{
    if (!o->shape && !o->to.input)
        return TERN_FAIL(err, TERN_ERR_USAGE,
                         "what? name a model, or a shape with --synthetic SHAPE (tern convert --help)");
    if (o->shape && o->to.input)
        return TERN_FAIL(err, TERN_ERR_USAGE, "'%s' or --synthetic %s? one at a time", o->to.input, o->shape);
    if (!o->to.output)
        return TERN_FAIL(err, TERN_ERR_USAGE, "where to? name a file with -o FILE");
    if (o->shape)
        return finish_synthetic(o, err);
    if (o->for_synthetic)
        return TERN_FAIL(err, TERN_ERR_USAGE, "%s is for synthetic models (--synthetic)", o->for_synthetic);
    o->to.to.type = o->type;
    o->to.to.head = o->head != UINT32_MAX ? o->head : TERN_CONVERT_KEEP;
    return TERN_OK;
}

/* TERN_END: --help was printed. */
static enum tern_status parse(int argc, char **argv, struct options *o, struct tern_err *err)
{
    enum tern_status st;
    int c;

    memset(o, 0, sizeof *o);
    o->type = o->head = UINT32_MAX;
    o->seed = 1;
    o->to.threads = tern_option_default_threads();
    o->to.cpu = tern_cpu_detect();
    optind = 1;
    while ((c = option_next(argc, argv, ":o:c:t:qh", longs, NULL, err)) != -1) {
        if (c == 'h') {
            print_help();
            return TERN_END;
        }
        if (c == '?')
            return TERN_ERR_USAGE;
        if ((st = parse_one(o, c, optarg, err)))
            return st;
    }
    if (optind + 1 < argc)
        return TERN_FAIL(err, TERN_ERR_USAGE, "'%s' is one model too many; the new file goes behind -o",
                         argv[optind + 1]);
    if (optind < argc)
        o->to.input = argv[optind];
    return finish(o, err);
}

static enum tern_status run(const struct options *o, struct tern_err *err)
{
    const struct synthetic_file_options file = {
        .threads = o->to.threads, .cpu = o->to.cpu, .force = o->to.force, .quiet = o->to.quiet
    };

    return o->shape ? synthetic_file_write(&o->synthetic, o->to.output, &file, err)
                    : convert_file(&o->to, err);
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
    st = run(&o, &err);
    return st ? cmd_fail_or_end("convert", &err) : EX_OK;
}
