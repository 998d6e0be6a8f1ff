/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `tern top`: the cluster behind a `tern serve` as it works, on the whole terminal or as blocks of text.
 *
 * One request an interval, over one connection, and nothing in between: watching costs a cluster a fraction
 * of a millisecond.  What cannot be reached for a while is asked again.
 */
#include "coordinator/cluster_lanes.h"
#include "coordinator/cluster_table.h"
#include "coordinator/commands.h"
#include "coordinator/full_screen.h"
#include "coordinator/option_habits.h"
#include "engine/base/log.h"
#include "engine/option.h"

#include <getopt.h>
#include <langinfo.h>
#include <locale.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>
#include <time.h>
#include <unistd.h>

#define BLOCK_COLUMNS 100 /* of what is no terminal */
#define NAME_COLUMNS  11  /* of a lane's name */

enum { OPT_SERVER = 1000, OPT_API_KEY, OPT_INTERVAL, OPT_SECONDS };

static const struct option longs[] = { { "server", required_argument, NULL, OPT_SERVER },
                                       { "api-key-file", required_argument, NULL, OPT_API_KEY },
                                       { "interval", required_argument, NULL, OPT_INTERVAL },
                                       { "seconds", required_argument, NULL, OPT_SECONDS },
                                       { "count", required_argument, NULL, 'n' },
                                       { "help", no_argument, NULL, 'h' },
                                       { NULL, 0, NULL, 0 } };

static const char help[] =
    "tern top: the cluster behind a `tern serve` as it works.\n"
    "\n"
    "usage: tern top [--server URL] [options]\n"
    "\n"
    "      --server URL          which server (default: $TERN_SERVER, else http://127.0.0.1:8080)\n"
    "      --api-key-file FILE   a line `key` or `name key`, for servers that want one\n"
    "      --interval S          seconds between two looks, 0.1 to 3600 (default: 1)\n"
    "      --seconds N           what the lanes show, 1 to 40 (default: 5)\n"
    "  -n, --count N             end after N looks\n"
    "  -h, --help                this text\n"
    "\n"
    "Keys: q ends, p or space pauses, + and - change what the lanes show.  In a lane each character is a\n"
    "stretch of time, and as high (or dark) as the share of it in which the stage computed.  What is no\n"
    "terminal gets a block of lines for each look.\n";

struct top {
    const char *server, *api_key_file;
    double interval_s;
    uint32_t seconds, count; /* count 0: for ever */
    struct http_client *http;
    struct cluster_view view;
    struct cluster_lanes *lanes;
    uint64_t since;
    bool screen, utf8, paused, quit, redraw;
    char lost[TERN_ERR_TEXT_BYTES]; /* why the picture is old, or empty */
};

static enum tern_status parse(int argc, char **argv, struct top *t, struct tern_err *err)
{
    enum tern_status st = TERN_OK;
    int c;

    t->interval_s = 1;
    t->seconds = 5;
    optind = 1;
    while (!st && (c = option_next(argc, argv, ":n:h", longs, NULL, err)) != -1) {
        switch (c) {
        case OPT_SERVER: t->server = optarg; break;
        case OPT_API_KEY: t->api_key_file = optarg; break;
        case OPT_INTERVAL: st = cmd_parse_f64("--interval", optarg, 0.1, 3600, &t->interval_s, err); break;
        case OPT_SECONDS:
            st = tern_option_u32("--seconds", optarg, 1, CLUSTER_LANES_SECONDS, &t->seconds, err);
            break;
        case 'n': st = tern_option_u32("-n", optarg, 1, UINT32_MAX, &t->count, err); break;
        case 'h': fputs(help, stdout); return TERN_END;
        default: return TERN_ERR_USAGE;
        }
    }
    if (!st && optind < argc)
        return TERN_FAIL(err, TERN_ERR_USAGE, "'%s' is not an option; a server goes behind --server",
                         argv[optind]);
    return st;
}

/* -- keys ------------------------------------------------------------------------------------------------ */

static void obey(struct top *t, int key)
{
    switch (key) {
    case 'q':
    case 'Q': t->quit = true; break;
    case 'p':
    case ' ':
        t->paused = !t->paused;
        t->redraw = true;
        break;
    case '+':
        t->seconds = t->seconds < CLUSTER_LANES_SECONDS / 2 ? 2 * t->seconds : CLUSTER_LANES_SECONDS;
        t->redraw = true;
        break;
    case '-':
        t->seconds = t->seconds > 1 ? t->seconds / 2 : 1;
        t->redraw = true;
        break;
    case FULL_SCREEN_CHANGED: t->redraw = true; break;
    default: break;
    }
}

/* While a request is under way. */
static bool go_on(void *user)
{
    struct top *t = user;

    if (t->screen)
        obey(t, full_screen_key(0));
    return !t->quit;
}

/* -- pictures -------------------------------------------------------------------------------------------- */

static void print_lanes(const struct top *t, unsigned columns, FILE *to)
{
    const unsigned cells = columns > NAME_COLUMNS + 20 ? columns - NAME_COLUMNS - 2 : 20;

    fprintf(to, "work of the last %u s\n", (unsigned)t->seconds);
    for (uint32_t i = 0; i <= t->view.n_stages; i++) {
        const struct cluster_stage *s = i ? &t->view.stages[i - 1] : &t->view.coordinator;

        fprintf(to, "%-*.*s|", NAME_COLUMNS, NAME_COLUMNS, s->name);
        cluster_lanes_draw(t->lanes, i, t->view.now_us, t->seconds, cells, t->utf8, to);
        fputs("|\n", to);
    }
}

static unsigned count_lines(const char *text, size_t n)
{
    unsigned lines = 0;

    for (size_t i = 0; i < n; i++)
        lines += text[i] == '\n';
    return lines;
}

/* At most `room` lines of a text, saying how many are left out. */
static void put_some(const char *text, size_t n, unsigned room, FILE *to)
{
    const unsigned all = count_lines(text, n);
    unsigned shown = all > room && room ? room - 1 : all;

    if (room == 0)
        return;
    for (size_t i = 0; i < n && shown; i++) {
        fputc(text[i], to);
        shown -= text[i] == '\n';
    }
    if (all > room)
        fprintf(to, "... %u more\n", all - room + 1);
}

struct part {
    char *text;
    size_t n;
};

/* NULL text: no memory. */
static struct part part_of(const struct top *t, unsigned columns, int which)
{
    struct part p = { NULL, 0 };
    FILE *to = open_memstream(&p.text, &p.n);

    if (!to)
        return p;
    if (which == 0)
        cluster_table_rows(&t->view, columns, to);
    else if (which == 1)
        print_lanes(t, columns, to);
    else
        cluster_table_slots(&t->view, to);
    if (fclose(to) != 0) {
        free(p.text);
        p = (struct part){ NULL, 0 };
    }
    return p;
}

/* The head as it is; table, lanes and slots share the rest of `rows`. */
static void print_picture(const struct top *t, unsigned columns, unsigned rows, FILE *to)
{
    const unsigned head = t->view.ready ? 6 : 7, rest = rows > head + 2 ? rows - head - 2 : 0;
    struct part parts[3];
    unsigned left = rest;

    cluster_table_head(&t->view, http_client_server(t->http), columns, to);
    if (*t->lost)
        fprintf(to, "LOST, asking again: %s\n", t->lost);
    else
        fprintf(to, "%s\n", t->paused ? "PAUSED (p goes on)" : t->screen ? "q ends, p pauses, + - time" : "");
    for (int i = 0; i < 3; i++) {
        unsigned lines, room;

        parts[i] = part_of(t, columns, i);
        lines = count_lines(parts[i].text ? parts[i].text : "", parts[i].n);
        room = i == 0 && lines > rest / 2 ? rest / 2 : lines;
        room = room < left ? room : left;
        put_some(parts[i].text ? parts[i].text : "", parts[i].n, room, to);
        left -= room;
        if (i < 2 && left && lines) {
            fputc('\n', to);
            left--;
        }
        free(parts[i].text);
    }
}

static bool draw(struct top *t)
{
    unsigned columns = BLOCK_COLUMNS, rows = 1u << 20;
    char *text = NULL;
    size_t n = 0;
    FILE *to = open_memstream(&text, &n);
    bool ok;

    t->redraw = false;
    if (!to)
        return true;
    if (t->screen)
        full_screen_size(&columns, &rows);
    print_picture(t, columns, rows, to);
    if (!t->screen)
        fputc('\n', to);
    ok = fclose(to) == 0;
    if (ok)
        ok = t->screen ? full_screen_draw(text, n) : fwrite(text, 1, n, stdout) == n && fflush(stdout) == 0;
    free(text);
    return ok;
}

/* -- looking --------------------------------------------------------------------------------------------- */

static enum tern_status look(struct top *t, struct tern_err *err)
{
    char path[64];
    json_t *root = NULL;
    enum tern_status st;

    (void)snprintf(path, sizeof path, "/tern/cluster?since=%llu", (unsigned long long)t->since);
    if ((st = cluster_view_fetch(t->http, path, &t->view, &root, err)))
        return st;
    t->since = cluster_lanes_add(t->lanes, root);
    json_decref(root);
    return TERN_OK;
}

/* Until it is time for the next look; keys are obeyed. */
static void wait_until(struct top *t, uint64_t when_ms)
{
    for (uint64_t now = tern_now_ms(); !t->quit && (now < when_ms || t->paused); now = tern_now_ms()) {
        const uint64_t left = t->paused ? 1000 : when_ms - now;

        if (t->screen)
            obey(t, full_screen_key((int)(left < 60000 ? left : 60000)));
        else
            nanosleep(&(struct timespec){ (time_t)(left / 1000), (long)(left % 1000) * 1000000 }, NULL);
        if (t->redraw && !draw(t))
            t->quit = true;
    }
}

static enum tern_status watch(struct top *t, struct tern_err *err)
{
    uint32_t n = 0;
    enum tern_status st = look(t, err); /* what does not work at all is said at once */

    if (!st && t->screen)
        st = full_screen_begin(err);
    while (!st && !t->quit) {
        const uint64_t next = tern_now_ms() + (uint64_t)(t->interval_s * 1000);

        if (!draw(t) || ++n == t->count)
            break;
        wait_until(t, next);
        if (t->quit)
            break;
        t->lost[0] = '\0';
        if (look(t, err) && !t->quit)
            cluster_view_clean(err->text, t->lost, sizeof t->lost);
    }
    if (t->screen)
        full_screen_end();
    return st;
}

static enum tern_status begin(struct top *t, struct tern_err *err)
{
    const struct http_client_options ho = { .command = "top",
                                            .server = cluster_view_server(t->server),
                                            .api_key_file = t->api_key_file,
                                            .silence_s = CLUSTER_VIEW_SILENCE_S,
                                            .go_on = go_on,
                                            .user = t };

    if (setlocale(LC_CTYPE, ""))
        t->utf8 = strcmp(nl_langinfo(CODESET), "UTF-8") == 0;
    if (!(t->lanes = cluster_lanes_new()))
        return TERN_FAIL(err, TERN_ERR_MEMORY, "no memory to watch a cluster");
    return http_client_open(&ho, &t->http, err);
}

int cmd_top(int argc, char **argv)
{
    struct top *t = calloc(1, sizeof *t);
    struct tern_err err;
    enum tern_status st;
    int code = EX_OK;

    if (!t) {
        (void)TERN_FAIL(&err, TERN_ERR_MEMORY, "no memory to start");
        return cmd_fail("top", &err);
    }
    signal(SIGPIPE, SIG_IGN);
    if ((st = parse(argc, argv, t, &err))) {
        code = st == TERN_END ? EX_OK : cmd_fail("top", &err);
    } else {
        st = begin(t, &err);
        t->screen = isatty(STDOUT_FILENO) == 1;
        if (st || (st = watch(t, &err)))
            code = cmd_fail("top", &err);
    }
    http_client_close(&t->http);
    cluster_lanes_free(&t->lanes);
    free(t);
    return code;
}
