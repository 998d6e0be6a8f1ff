/* SPDX-License-Identifier: Apache-2.0 */
/* Options shared by the subcommands that run a model: see engine_options.h. */
#include "coordinator/engine_options.h"

#include "engine/base/log.h"
#include "engine/option.h"
#include "engine/pretokenizer.h"

#include <stdio.h>
#include <string.h>

static const char help_model[] = "Model and machine\n" TERN_FILE_HELP_MODEL;

static const char help_sizes[] =
    "  -c, --ctx-size N          positions of one sequence; 0: what the model was trained with\n"
    "  -t, --threads N           compute threads (default: all CPUs this process may use)\n";

static const char help_before_wire[] =
    "      --cpu LEVEL           ref, avx2, avxvnni, avx512, avx512vbmi; on ARM ref, neon,\n"
    "                            dotprod, i8mm (default: the best this machine has)\n";

static const char help_layout[] =
    "      --layout LAYOUT       how ternary weights lie in memory: 2bit, 1.6bit, or auto, which\n"
    "                            measures once which one this machine is faster with (default: auto;\n"
    "                            the same text)\n"
    "      --kv f16|int8         what the KV cache holds (default: f16); int8 takes half the memory and\n"
    "                            changes the text a little, on all machines alike\n"
    "      --chunk ROWS|all      prompt tokens in one step (default: chosen as it goes, by how long\n"
    "                            the stages take)\n"
    "      --head MODE           reading the output head: full; screened: an int8 copy says which rows\n"
    "                            matter, only those are computed: the same tokens from half the bytes of\n"
    "                            an f16 head; statistical: a 4-bit copy, may differ (designed: once in\n"
    "                            10^6); auto: screened where the head takes more than 6 bits a weight\n"
    "                            and not every logit is asked for (default)\n"
    "\n"
    "Where the layers are (default: in this process)\n"
    "      --local N             N worker processes on this machine, over encrypted loopback links\n"
    "      --split A,B,...       layers of each of them; even (default); or measured: by the time each\n"
    "                            needs for one, tried out for a moment before the start\n"
    "      --cluster FILE        workers on other machines, one a line:\n"
    "                            name tcp://host:port PUBLICKEY [layers=a-b]\n"
    "      --key FILE            this coordinator's key, made by `tern keygen`; with --cluster\n"
    "      --wire FORMAT         rounding between layers, and what the links carry: int8, int8-32,\n"
    "                            int8-64, int8-row, int8x2, f16 or f32; any way of cutting the model\n"
    "                            gives the same text (default: ";

static const char help_after_wire[] =
    ")\n"
    "      --dump-steps FILE     write what goes over the links to FILE in clear: prompts and rows,\n"
    "                            for tests\n"
    "      --in-flight N         steps on their way at once, 1 to 64 (default: two for each worker and\n"
    "                            six for the links, fewer where their buffers would take more than 32\n"
    "                            MiB a worker): links with delay need more, 1 + delay * links / time\n"
    "                            of a stage\n"
    "      --dead-after MS       silence of a worker that counts as its death (default: 3000)\n"
    "      --step-timeout MS     the same for workers that answer but do not get on with their steps\n"
    "                            (default: 60000)\n"
    "\n"
    "Output\n"
    "  -q, --quiet               no progress, no figures\n"
    "      --verbose             log every step\n";

void engine_options_print_help(bool with_sizes)
{
    fputs(help_model, stdout);
    if (with_sizes)
        fputs(help_sizes, stdout);
    fputs(help_before_wire, stdout);
    tern_pretok_help(stdout);
    fputs(tern_file_option_help, stdout);
    fputs(help_layout, stdout);
    fputs(tern_boundary_name(TERN_BOUNDARY_DEFAULT), stdout);
    fputs(help_after_wire, stdout);
}

void engine_options_default(struct engine_options *o)
{
    memset(o, 0, sizeof *o);
    o->wire = TERN_BOUNDARY_DEFAULT;
    o->kv = TERN_KV_DEFAULT;
    o->dead_after_ms = 3000;
    o->step_timeout_ms = 60000;
}

static enum tern_status parse_split(struct engine_options *o, const char *text, struct tern_err *err)
{
    char word[16];
    uint32_t n = 0, split[TERN_MAX_WORKERS];
    enum tern_status st;

    o->n_split = 0; /* the last one counts */
    o->split_measured = strcmp(text, "measured") == 0;
    if (o->split_measured || strcmp(text, "even") == 0)
        return TERN_OK;
    for (const char *p = text;;) {
        size_t len = strcspn(p, ",");

        if (len == 0 || len >= sizeof word || n == TERN_MAX_WORKERS)
            return TERN_FAIL(err, TERN_ERR_USAGE,
                             "--split: '%s' is not even, measured, or a list of layer counts such as 4,2",
                             text);
        memcpy(word, p, len);
        word[len] = '\0';
        if ((st = tern_option_u32("--split", word, 1, TERN_MAX_LAYERS, &split[n++], err)))
            return st;
        if (p[len] == '\0')
            break;
        p += len + 1;
    }
    memcpy(o->split, split, n * sizeof *split);
    o->n_split = n;
    return TERN_OK;
}

static enum tern_status short_option(struct engine_options *o, int c, const char *arg, struct tern_err *err)
{
    enum tern_status st;

    switch (c) {
    case 'm':
        if ((size_t)snprintf(o->model, sizeof o->model, "%s", arg) >= sizeof o->model || !*arg)
            return TERN_FAIL(err, TERN_ERR_USAGE, "-m: the path is %s", *arg ? "too long" : "empty");
        return TERN_OK;
    case 'c':
        st = tern_option_u32("-c", arg, 0, TERN_MAX_CONTEXT, &o->ctx, err);
        o->ctx_trained = !st && o->ctx == 0;
        return st;
    case 't':
        o->threads_given = true;
        return tern_option_u32("-t", arg, 1, TERN_MAX_THREADS, &o->threads, err);
    case 'q': o->quiet = true; return TERN_OK;
    default: return TERN_END;
    }
}

enum tern_status engine_option(struct engine_options *o, int c, const char *arg, struct tern_err *err)
{
    enum tern_status st;

    switch (c) {
    case ENGINE_OPT_WIRE:
        if (!tern_boundary_by_name(arg, &o->wire))
            return TERN_FAIL(err, TERN_ERR_USAGE,
                             "--wire: '%s' is not int8, int8-32, int8-64, int8-row, int8x2, f16 or f32", arg);
        return TERN_OK;
    case ENGINE_OPT_KV: return tern_option_kv(arg, &o->kv, err);
    case ENGINE_OPT_CPU: o->cpu_given = true; return tern_option_cpu(arg, &o->cpu, err);
    case ENGINE_OPT_PRE: o->pre = arg; return TERN_OK;
    case ENGINE_OPT_LAYOUT: return tern_option_layout(arg, &o->layout, err);
    case ENGINE_OPT_CHUNK:
        if (strcmp(arg, "all") == 0) {
            o->chunk = TERN_MAX_STEP_ROWS;
            return TERN_OK;
        }
        return tern_option_u32("--chunk", arg, 1, TERN_MAX_STEP_ROWS, &o->chunk, err);
    case ENGINE_OPT_HEAD:
        if (!tern_head_mode_by_name(arg, &o->head))
            return TERN_FAIL(err, TERN_ERR_USAGE, "--head: '%s' is not auto, full, screened or statistical",
                             arg);
        return TERN_OK;
    case ENGINE_OPT_LOCAL: return tern_option_u32("--local", arg, 1, TERN_MAX_WORKERS, &o->local, err);
    case ENGINE_OPT_SPLIT: return parse_split(o, arg, err);
    case ENGINE_OPT_CLUSTER: o->cluster = arg; return TERN_OK;
    case ENGINE_OPT_KEY: o->key = arg; return TERN_OK;
    case ENGINE_OPT_IN_FLIGHT:
        return tern_option_u32("--in-flight", arg, 1, TERN_MAX_STEPS_IN_FLIGHT, &o->in_flight, err);
    case ENGINE_OPT_DEAD_AFTER:
        return tern_option_u32("--dead-after", arg, 500, 600000, &o->dead_after_ms, err);
    case ENGINE_OPT_STEP_TIMEOUT:
        return tern_option_u32("--step-timeout", arg, 1000, 3600000, &o->step_timeout_ms, err);
    case ENGINE_OPT_DUMP_STEPS: o->dump_steps = arg; return TERN_OK;
    case ENGINE_OPT_JSON: o->json = true; return TERN_OK;
    case ENGINE_OPT_VERBOSE: o->verbose = true; return TERN_OK;
    default: break;
    }
    st = tern_file_option(&o->file, c, arg, err);
    return st == TERN_END ? short_option(o, c, arg, err) : st;
}

enum tern_status engine_options_finish(struct engine_options *o, struct tern_err *err)
{
    if (o->local && o->cluster)
        return TERN_FAIL(err, TERN_ERR_USAGE, "--local and --cluster exclude each other; give one of them");
    if ((o->n_split || o->split_measured) && !o->local)
        return TERN_FAIL(err, TERN_ERR_USAGE,
                         "--split goes with --local N; a cluster file says layers=a-b itself");
    if (o->n_split && o->n_split != o->local)
        return TERN_FAIL(err, TERN_ERR_USAGE, "--split names %u workers and --local %u", (unsigned)o->n_split,
                         (unsigned)o->local);
    if (o->cluster && !o->key)
        return TERN_FAIL(
            err, TERN_ERR_USAGE,
            "--cluster needs --key FILE, this coordinator's own key; make one with `tern keygen`");
    if (o->key && !o->cluster)
        return TERN_FAIL(err, TERN_ERR_USAGE, "--key goes with --cluster FILE");
    if (o->quiet && o->verbose)
        return TERN_FAIL(err, TERN_ERR_USAGE, "--quiet and --verbose exclude each other");
    if (!o->threads_given)
        o->threads = tern_option_default_threads();
    if (!o->cpu_given)
        o->cpu = tern_cpu_detect();
    tern_log_set_level(o->verbose ? TERN_LOG_DEBUG : o->quiet ? TERN_LOG_ERROR : TERN_LOG_WARN);
    return *o->model ? TERN_OK : tern_option_default_model("-m", o->model, sizeof o->model, err);
}
