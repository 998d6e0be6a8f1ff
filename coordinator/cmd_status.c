/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `tern status`: the cluster behind a `tern serve`, once, as a table.  The exit code says whether it takes
 * requests.
 */
#include "coordinator/cluster_table.h"
#include "coordinator/commands.h"
#include "coordinator/interrupt.h"
#include "coordinator/json_out.h"
#include "coordinator/option_habits.h"

#include <getopt.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sysexits.h>
#include <unistd.h>

enum { OPT_SERVER = 1000, OPT_API_KEY, OPT_JSON };

static const struct option longs[] = { { "server", required_argument, NULL, OPT_SERVER },
                                       { "api-key-file", required_argument, NULL, OPT_API_KEY },
                                       { "json", no_argument, NULL, OPT_JSON },
                                       { "help", no_argument, NULL, 'h' },
                                       { NULL, 0, NULL, 0 } };

static const char help[] =
    "tern status: the cluster behind a `tern serve`, as a table.\n"
    "\n"
    "usage: tern status [--server URL] [--api-key-file FILE] [--json]\n"
    "\n"
    "      --server URL          which server (default: $TERN_SERVER, else http://127.0.0.1:8080)\n"
    "      --api-key-file FILE   a line `key` or `name key`, for servers that want one\n"
    "      --json                all that the server tells, as a JSON object\n"
    "  -h, --help                this text\n"
    "\n"
    "A row for the coordinator and each worker: its layers; ms per step, tokens per second and share of\n"
    "idle time, of the last seconds; how long a step waits there; latency and bytes of the link that\n"
    "leads to it (the coordinator's: home), with < where clocks cannot tell it from none; memory;\n"
    "connections it refused.  A narrow terminal shows less.\n"
    "\n"
    "Exit code: 0 the server takes requests, 75 it does not at the moment, 69 it cannot be reached,\n"
    "77 it wants an API key.\n";

struct status {
    const char *server, *api_key_file;
    bool json;
    struct http_client *http;
    struct cluster_view view;
    json_t *root;
};

static enum tern_status parse(int argc, char **argv, struct status *s, struct tern_err *err)
{
    int c;

    optind = 1;
    while ((c = option_next(argc, argv, ":h", longs, NULL, err)) != -1) {
        switch (c) {
        case OPT_SERVER: s->server = optarg; break;
        case OPT_API_KEY: s->api_key_file = optarg; break;
        case OPT_JSON: s->json = true; break;
        case 'h': fputs(help, stdout); return TERN_END;
        default: return TERN_ERR_USAGE;
        }
    }
    if (optind < argc)
        return TERN_FAIL(err, TERN_ERR_USAGE, "'%s' is not an option; a server goes behind --server",
                         argv[optind]);
    return TERN_OK;
}

static unsigned terminal_width(void)
{
    struct winsize w;

    if (isatty(STDOUT_FILENO) && ioctl(STDOUT_FILENO, TIOCGWINSZ, &w) == 0 && w.ws_col >= 40)
        return w.ws_col;
    return CLUSTER_TABLE_ANY_WIDTH;
}

static enum tern_status show(struct status *s, struct tern_err *err)
{
    if (s->json) {
        if (json_dumpf(s->root, stdout, JSON_INDENT(2) | JSON_ENSURE_ASCII | JSON_REAL_PRECISION(12)) != 0)
            return TERN_FAIL(err, TERN_ERR_IO, "cannot print the answer");
        putchar('\n');
    } else {
        const unsigned width = terminal_width();

        cluster_table_head(&s->view, http_client_server(s->http), width, stdout);
        putchar('\n');
        cluster_table_rows(&s->view, width, stdout);
        if (s->view.n_slots)
            putchar('\n');
        cluster_table_slots(&s->view, stdout);
    }
    return cmd_flush(err);
}

static enum tern_status ask(struct status *s, struct tern_err *err)
{
    const struct http_client_options ho = { .command = "status",
                                            .server = cluster_view_server(s->server),
                                            .api_key_file = s->api_key_file,
                                            .silence_s = CLUSTER_VIEW_SILENCE_S };
    enum tern_status st = http_client_open(&ho, &s->http, err);

    if (!st)
        st = cluster_view_fetch(s->http, "/tern/cluster", &s->view, &s->root, err);
    return st ? st : show(s, err);
}

int cmd_status(int argc, char **argv)
{
    struct status *s = calloc(1, sizeof *s);
    struct tern_err err;
    enum tern_status st;
    int code = EX_OK;

    if (!s) {
        (void)TERN_FAIL(&err, TERN_ERR_MEMORY, "no memory to start");
        return cmd_fail("status", &err);
    }
    signal(SIGPIPE, SIG_IGN);
    if ((st = parse(argc, argv, s, &err))) {
        code = st == TERN_END ? EX_OK : cmd_fail("status", &err);
    } else {
        interrupt_catch();
        if (ask(s, &err))
            code = cmd_fail_or_end("status", &err);
        else if (!s->view.ready)
            code = EX_TEMPFAIL;
    }
    http_client_close(&s->http);
    json_decref(s->root);
    free(s);
    return code;
}
