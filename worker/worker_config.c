/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The command line of ternd.
 */
#include "worker/worker_config.h"

#include "engine/option.h"
#include "engine/option_next.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static const char help[] =
    "ternd: holds a slice of a model's layers for a coordinator (`tern run --cluster`).\n"
    "\n"
    "usage: ternd --listen ADDR:PORT --key FILE --allow FILE [options]\n"
    "\n"
    "  --listen ADDR:PORT   address to bind, for example 0.0.0.0:7700; port 0 takes a free one\n"
    "  --key FILE           this worker's key pair, made by `tern keygen`\n"
    "  --allow FILE         who may connect: one `name coordinator|worker PUBLICKEY` a line\n"
    "  -m, --model FILE     GGUF file, first part of a split one, or Hugging Face folder; the whole model\n"
    "                       or a slice of it (default: $TERN_MODEL, else the fable model)\n"
    "  -t, --threads N      compute threads (default: the CPUs this process may use)\n"
    "  --memory LIMIT       refuse assignments that need more, for example 2G (default: no limit)\n"
    "  --name NAME          what logs and coordinators call this worker (default: the host's name)\n"
    "  --cpu LEVEL          ref, avx2, avxvnni, avx512, avx512vbmi; on ARM ref, neon, dotprod,\n"
    "                       i8mm (default: the best this machine has)\n"
    "  --layout LAYOUT      how ternary weights lie in memory: 2bit, 1.6bit, or auto, which measures once\n"
    "                       which one this machine is faster with; the same bits (default: auto)\n"
    "\n"
    "What the model file does not say of itself, as for tern:\n";

static const char help_rest[] =
    "\n"
    "  --verbose            log every change of state\n"
    "  -q, --quiet          log warnings and errors only\n"
    "  -h, --help           this text\n"
    "  --version            print the version\n"
    "\n"
    "For programs that start ternd themselves:\n"
    "  --ready-fd N         write the bound endpoint and a newline to this descriptor, then close it\n"
    "  --lifeline N         exit when this descriptor reaches its end\n";

void worker_config_print_help(void)
{
    fputs(help, stdout);
    fputs(tern_file_option_help, stdout);
    fputs(help_rest, stdout);
}

enum {
    OPT_LISTEN = 256,
    OPT_KEY,
    OPT_ALLOW,
    OPT_MEMORY,
    OPT_NAME,
    OPT_CPU,
    OPT_LAYOUT,
    OPT_VERBOSE,
    OPT_READY_FD,
    OPT_LIFELINE,
    OPT_VERSION
};

static const struct option options[] = {
    { "listen", required_argument, NULL, OPT_LISTEN },
    { "key", required_argument, NULL, OPT_KEY },
    { "allow", required_argument, NULL, OPT_ALLOW },
    { "model", required_argument, NULL, 'm' },
    { "threads", required_argument, NULL, 't' },
    { "memory", required_argument, NULL, OPT_MEMORY },
    { "name", required_argument, NULL, OPT_NAME },
    { "cpu", required_argument, NULL, OPT_CPU },
    TERN_FILE_LONG_OPTIONS,
    { "layout", required_argument, NULL, OPT_LAYOUT },
    { "verbose", no_argument, NULL, OPT_VERBOSE },
    { "quiet", no_argument, NULL, 'q' },
    { "ready-fd", required_argument, NULL, OPT_READY_FD },
    { "lifeline", required_argument, NULL, OPT_LIFELINE },
    { "help", no_argument, NULL, 'h' },
    { "version", no_argument, NULL, OPT_VERSION },
    { NULL, 0, NULL, 0 },
};

/* Of `tern`, and of the workers of other programs. */
static const struct tern_option_habit habits[] = {
    { "-H --host -p --port", NULL, "write --listen ADDR:PORT" },
    { "-c --cache --ctx-size", NULL, "the coordinator says how much context there is; leave it out" },
    { "-v", NULL, "write --verbose" },
};

static const struct tern_option_table table = { .program = "ternd",
                                                .shorts = ":m:t:qh",
                                                .longs = options,
                                                .habits = habits,
                                                .n_habits = sizeof habits / sizeof habits[0] };

/* -- values ---------------------------------------------------------------------------------------------- */

/* A descriptor we were given: it must be open, and our own children must not inherit it. */
static enum tern_status parse_fd(const char *option, const char *text, int *out, struct tern_err *err)
{
    uint32_t fd = 0;
    enum tern_status st = tern_option_u32(option, text, 0, 1u << 20, &fd, err);

    if (st)
        return st;
    if (fcntl((int)fd, F_SETFD, FD_CLOEXEC) < 0)
        return TERN_FAIL_SYS(err, TERN_ERR_USAGE, errno, "%s: descriptor %u is not open", option,
                             (unsigned)fd);
    *out = (int)fd;
    return TERN_OK;
}

/* Names travel in messages and logs: printable ASCII without blanks. */
static enum tern_status parse_name(const char *text, char out[static TERN_MAX_NAME_BYTES + 1],
                                   struct tern_err *err)
{
    size_t n = strlen(text), good = 0;

    while (text[good] > ' ' && text[good] <= '~')
        good++;
    if (n == 0 || n > TERN_MAX_NAME_BYTES || good != n)
        return TERN_FAIL(err, TERN_ERR_USAGE, "--name: a name has 1 to %d printable characters and no blanks",
                         TERN_MAX_NAME_BYTES);
    memcpy(out, text, n + 1);
    return TERN_OK;
}

/* -- defaults -------------------------------------------------------------------------------------------- */

static void default_name(char out[static TERN_MAX_NAME_BYTES + 1])
{
    char host[TERN_MAX_NAME_BYTES + 1] = { 0 };

    if (gethostname(host, sizeof host - 1) != 0 || parse_name(host, out, NULL) != TERN_OK)
        memcpy(out, "ternd", sizeof "ternd");
}

/* -- the whole ------------------------------------------------------------------------------------------- */

static enum tern_status take_option(int id, const char *arg, struct worker_config *c, struct tern_err *err)
{
    enum tern_status st = tern_file_option(&c->file, id, arg, err);

    if (st != TERN_END)
        return st;
    switch (id) {
    case OPT_LISTEN: c->listen = arg; return TERN_OK;
    case OPT_KEY: c->key_path = arg; return TERN_OK;
    case OPT_ALLOW: c->allow_path = arg; return TERN_OK;
    case 'm':
        if (arg[0] == '\0' ||
            (size_t)snprintf(c->model_path, sizeof c->model_path, "%s", arg) >= sizeof c->model_path)
            return TERN_FAIL(err, TERN_ERR_USAGE, "--model: the path is empty or too long");
        return TERN_OK;
    case 't': return tern_option_u32("--threads", arg, 1, TERN_MAX_THREADS, &c->threads, err);
    case OPT_MEMORY: return tern_option_bytes("--memory", arg, &c->memory_limit, err);
    case OPT_NAME: return parse_name(arg, c->name, err);
    case OPT_CPU: return tern_option_cpu(arg, &c->cpu, err);
    case OPT_LAYOUT: return tern_option_layout(arg, &c->layout, err);
    case OPT_VERBOSE: c->verbose = true; return TERN_OK;
    case 'q': c->quiet = true; return TERN_OK;
    case OPT_READY_FD: return parse_fd("--ready-fd", arg, &c->ready_fd, err);
    case OPT_LIFELINE: return parse_fd("--lifeline", arg, &c->lifeline_fd, err);
    case 'h': c->show_help = true; return TERN_OK;
    case OPT_VERSION: c->show_version = true; return TERN_OK;
    default: TERN_BUG_IF(true);
    }
    return TERN_OK;
}

static enum tern_status check_complete(struct worker_config *c, struct tern_err *err)
{
    const struct {
        const char *value, *option;
    } needed[] = {
        { c->listen, "--listen ADDR:PORT" },
        { c->key_path, "--key FILE" },
        { c->allow_path, "--allow FILE" },
    };

    for (size_t i = 0; i < sizeof needed / sizeof needed[0]; i++)
        if (!needed[i].value || !*needed[i].value)
            return TERN_FAIL(err, TERN_ERR_USAGE, "%s is missing; see ternd --help", needed[i].option);
    if (c->model_path[0] == '\0')
        return tern_option_default_model("--model", c->model_path, sizeof c->model_path, err);
    return TERN_OK;
}

enum tern_status worker_config_parse(int argc, char **argv, struct worker_config *out, struct tern_err *err)
{
    struct worker_config c = { .cpu = tern_cpu_detect(),
                               .layout = TERN_LAYOUT_AUTO,
                               .ready_fd = -1,
                               .lifeline_fd = -1,
                               .threads = tern_option_default_threads() };
    enum tern_status st;
    int id;

    default_name(c.name);
    while ((id = tern_option_next(argc, argv, &table, NULL, err)) != -1) {
        if (id == '?')
            return TERN_ERR_USAGE;
        st = take_option(id, optarg, &c, err);
        if (st)
            return st;
    }
    if (optind < argc)
        return TERN_FAIL(err, TERN_ERR_USAGE, "'%s' is one word too many; see ternd --help", argv[optind]);
    if (!c.show_help && !c.show_version) {
        st = check_complete(&c, err);
        if (st)
            return st;
    }
    *out = c;
    return TERN_OK;
}
