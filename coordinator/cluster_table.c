/* SPDX-License-Identifier: Apache-2.0 */
/* Lines about a cluster: see cluster_table.h. */
#include "coordinator/cluster_table.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define CELL 136 /* bytes of a cell, which is ASCII */

/* -- numbers as people read them ------------------------------------------------------------------------- */

/* "-": not known. */
static void plain(double v, int digits, char *out)
{
    if (isnan(v))
        strcpy(out, "-");
    else
        (void)snprintf(out, CELL, "%.*f", digits, v);
}

/* Three digits or so. */
static void three(double v, char *out)
{
    plain(v, fabs(v) < 9.995 ? 2 : fabs(v) < 99.95 ? 1 : 0, out);
}

static void bytes(double v, char *out)
{
    static const char units[] = "BKMGTP";
    unsigned u = 0;

    if (isnan(v)) {
        strcpy(out, "-");
        return;
    }
    for (; v >= 999.5 && u < 5; u++)
        v /= 1024;
    (void)snprintf(out, CELL, u && v < 9.95 ? "%.1f%c" : "%.0f%c", v, units[u]);
}

/* Of microseconds. */
static void span(double us, char *out)
{
    const bool small = us < 999.5, medium = us < 999.5e3;
    const double v = small ? us : medium ? us / 1e3 : us / 1e6;

    if (isnan(us))
        strcpy(out, "-");
    else
        (void)snprintf(out, CELL, "%.*f%s", !small && v < 9.95, v, small ? "us" : medium ? "ms" : "s");
}

static void share(double v, char *out)
{
    if (isnan(v) || v < 0)
        strcpy(out, "-");
    else
        (void)snprintf(out, CELL, "%.0f%%", v * 100);
}

/* -- the table ------------------------------------------------------------------------------------------- */

struct row {
    const struct cluster_stage *s;
    const struct cluster_hop *hop; /* that leads here, or NULL */
    bool coordinator;
};

static void cell_name(const struct row *r, char *out)
{
    (void)snprintf(out, CELL, "%s", *r->s->name ? r->s->name : "-");
}

static void cell_layers(const struct row *r, char *out)
{
    if (r->coordinator)
        strcpy(out, "head");
    else if (isnan(r->s->first) || isnan(r->s->last))
        strcpy(out, "-");
    else
        (void)snprintf(out, CELL, "%.0f-%.0f", r->s->first, r->s->last);
}

static void cell_ms(const struct row *r, char *out)
{
    three(r->s->ms_per_step, out);
}

static void cell_rate(const struct row *r, char *out)
{
    three(r->s->tokens_per_s, out);
}

static void cell_idle(const struct row *r, char *out)
{
    share(r->s->idle_share, out);
}

static void cell_queue(const struct row *r, char *out)
{
    span(r->s->queue_ms * 1e3, out);
}

/* A time that clocks are not good enough for: it was at most their error, and off by no more than that. */
static void hop_time(const struct cluster_hop *h, double us, char *out)
{
    char most[CELL];

    if (!h || !isnan(us) || isnan(h->within_us)) {
        span(us, out);
        return;
    }
    span(2 * h->within_us, most);
    (void)snprintf(out, CELL, "<%.*s", CELL - 2, most);
}

static void cell_hop(const struct row *r, char *out)
{
    hop_time(r->hop, r->hop ? r->hop->p50_us : NAN, out);
}

static void cell_hop99(const struct row *r, char *out)
{
    hop_time(r->hop, r->hop ? r->hop->p99_us : NAN, out);
}

static void cell_link_rate(const struct row *r, char *out)
{
    bytes(r->hop ? r->hop->bytes_per_s : NAN, out);
}

static void cell_link(const struct row *r, char *out)
{
    bytes(r->hop ? r->hop->bytes : NAN, out);
}

static void cell_memory(const struct row *r, char *out)
{
    bytes(r->s->memory_bytes, out);
}

static void cell_threads(const struct row *r, char *out)
{
    plain(r->s->threads, 0, out);
}

static void cell_cpu(const struct row *r, char *out)
{
    (void)snprintf(out, CELL, "%s", *r->s->cpu ? r->s->cpu : "-");
}

static void cell_rejected(const struct row *r, char *out)
{
    plain(r->s->rejected, 0, out);
}

static void cell_state(const struct row *r, char *out)
{
    char silent[CELL];

    if (!r->s->suspect) {
        strcpy(out, r->s->away ? "-" : "ok");
        return;
    }
    span(r->s->silent_ms * 1e3, silent);
    (void)snprintf(out, CELL, "SUSPECT %.20s", silent);
}

static void cell_endpoint(const struct row *r, char *out)
{
    (void)snprintf(out, CELL, "%s", *r->s->endpoint ? r->s->endpoint : "in process");
}

static const struct column {
    const char *title;
    void (*cell)(const struct row *r, char *out);
    bool left;
    unsigned rank; /* the highest go first when it gets narrow; 0 stays */
} columns[] = {
    { "WORKER", cell_name, true, 0 },        { "LAYERS", cell_layers, true, 0 },
    { "STATE", cell_state, true, 1 },        { "MS/STEP", cell_ms, false, 0 },
    { "TOK/S", cell_rate, false, 2 },        { "IDLE", cell_idle, false, 0 },
    { "QUEUE", cell_queue, false, 3 },       { "HOP P50", cell_hop, false, 4 },
    { "P99", cell_hop99, false, 8 },         { "BYTES/S", cell_link_rate, false, 7 },
    { "BYTES", cell_link, false, 11 },       { "MEMORY", cell_memory, false, 5 },
    { "THREADS", cell_threads, false, 9 },   { "CPU", cell_cpu, true, 10 },
    { "REJECTED", cell_rejected, false, 6 }, { "ENDPOINT", cell_endpoint, true, 12 },
};
#define N_COLUMNS (sizeof columns / sizeof columns[0])

static struct row row_at(const struct cluster_view *v, uint32_t i)
{
    if (i == 0)
        return (struct row){ &v->coordinator, v->n_hops ? &v->hops[v->n_hops - 1] : NULL, true };
    return (struct row){ &v->stages[i - 1], i - 1 < v->n_hops ? &v->hops[i - 1] : NULL, false };
}

/* Widths of what is shown; 0: too wide for the line. */
static void choose_columns(const struct cluster_view *v, unsigned width, unsigned widths[N_COLUMNS])
{
    unsigned total = 0;
    char text[CELL];

    for (size_t c = 0; c < N_COLUMNS; c++) {
        widths[c] = (unsigned)strlen(columns[c].title);
        for (uint32_t i = 0; i <= v->n_stages; i++) {
            const struct row r = row_at(v, i);

            columns[c].cell(&r, text);
            if (strlen(text) > widths[c])
                widths[c] = (unsigned)strlen(text);
        }
        total += widths[c] + 2;
    }
    while (total > width + 2) {
        size_t worst = N_COLUMNS;

        for (size_t c = 0; c < N_COLUMNS; c++)
            if (widths[c] && columns[c].rank && (worst == N_COLUMNS || columns[c].rank > columns[worst].rank))
                worst = c;
        if (worst == N_COLUMNS)
            break;
        total -= widths[worst] + 2;
        widths[worst] = 0;
    }
}

/* r NULL: the titles. */
static void print_row(const struct row *r, const unsigned widths[N_COLUMNS], unsigned width, FILE *to)
{
    char text[CELL], line[N_COLUMNS * (CELL + 2) + 1];
    size_t n = 0;

    for (size_t c = 0; c < N_COLUMNS; c++) {
        if (!widths[c])
            continue;
        if (r)
            columns[c].cell(r, text);
        else
            strcpy(text, columns[c].title);
        n += (size_t)snprintf(line + n, sizeof line - n, columns[c].left ? "%s%-*s" : "%s%*s", n ? "  " : "",
                              (int)widths[c], text);
    }
    n = n < width ? n : width;
    while (n && line[n - 1] == ' ')
        n--;
    fprintf(to, "%.*s\n", (int)n, line);
}

void cluster_table_rows(const struct cluster_view *v, unsigned width, FILE *to)
{
    unsigned widths[N_COLUMNS];

    choose_columns(v, width, widths);
    print_row(NULL, widths, width, to);
    for (uint32_t i = 0; i <= v->n_stages; i++) {
        const struct row r = row_at(v, i);

        print_row(&r, widths, width, to);
    }
}

/* -- lines around it ------------------------------------------------------------------------------------- */

/* "3/4" */
static void ratio(const char *what, double a, double b, FILE *to)
{
    char one[CELL], two[CELL];

    plain(a, 0, one);
    plain(b, 0, two);
    fprintf(to, "%s %s/%s", what, one, two);
}

static void pair(const char *what, const struct cluster_quantiles *q, FILE *to)
{
    char one[CELL], two[CELL];

    three(q->p50, one);
    three(q->p99, two);
    fprintf(to, "%s %s/%s", what, one, two);
}

static void labelled(const char *what, double v, FILE *to)
{
    char text[CELL];

    plain(v, 0, text);
    fprintf(to, "%s %s", what, text);
}

static void rate(const char *what, double v, FILE *to)
{
    char text[CELL];

    three(v, text);
    fprintf(to, "%s %s", what, text);
}

static void print_service(const struct cluster_view *v, const char *server, FILE *to)
{
    char size[CELL], ctx[CELL], clean[HTTP_CLIENT_MAX_SERVER];
    const double up = v->uptime_s >= 0 ? v->uptime_s : 0;

    bytes(v->file_bytes, size);
    plain(v->ctx, 0, ctx);
    cluster_view_clean(server, clean, sizeof clean);
    fprintf(to, "%s  tern %s  %s  up %.0f:%02.0f:%02.0f\n", clean, v->version,
            v->ready ? "ready" : "NOT READY", floor(up / 3600), floor(fmod(up / 60, 60)),
            floor(fmod(up, 60)));
    if (!v->ready)
        fprintf(to, "  %s\n", *v->why ? v->why : "it does not say why");
    fprintf(to, "model %s  %s  ", *v->model ? v->model : "-", v->architecture);
    labelled("layers", v->layers, to);
    fprintf(to, "  %s  context %s  wire %s  kv %s\n", size, ctx, v->wire, v->kv);
}

/* How much of a line of n bytes fits: up to the last gap of two blanks, else to the last number or word. */
static size_t fitting(const char *line, size_t n, unsigned width)
{
    size_t gap = 0, blank = 0, seen = 0;

    for (size_t i = 0; i < n; i++) {
        const bool ends = line[i] == ' ' && i && line[i - 1] != ' ';

        if (((unsigned char)line[i] & 0xc0) == 0x80)
            continue; /* the rest of a character */
        if (ends)
            blank = i;
        if (ends && i + 1 < n && line[i + 1] == ' ')
            gap = i;
        if (seen++ == width)
            return gap ? gap : blank ? blank : i;
    }
    return n;
}

static void print_head(const struct cluster_view *v, const char *server, FILE *to)
{
    print_service(v, server, to);
    ratio("running", v->running, v->parallel, to);
    ratio("  waiting", v->waiting, v->max_queue, to);
    ratio("  steps in flight", v->in_flight, v->max_in_flight, to);
    labelled("  chunk", v->chunk, to);
    labelled("  groups", v->groups, to);
    rate("\ntokens/s: prompts", v->prompt_per_s, to);
    rate(" answers", v->answer_per_s, to);
    ratio("  pages", v->pages - v->pages_free - v->pages_cached, v->pages, to);
    labelled(" cached", v->pages_cached, to);
    ratio("  prefix hits", v->prefix_hits, v->prefix_lookups, to);
    pair("\nms, p50/p99: first token", &v->first_token_ms, to);
    pair("  next token", &v->between_tokens_ms, to);
    pair("  in the queue", &v->queued_ms, to);
    labelled("\njobs", v->jobs, to);
    labelled(": ended", v->ended, to);
    labelled(" cancelled", v->cancelled, to);
    labelled(" failed", v->failed, to);
    labelled(" refused", v->refused, to);
    labelled("  tokens", v->answer_tokens, to);
    labelled("  reopened", v->reopened, to);
    fputc('\n', to);
}

void cluster_table_head(const struct cluster_view *v, const char *server, unsigned width, FILE *to)
{
    char *text = NULL;
    size_t n = 0;
    FILE *whole = open_memstream(&text, &n);

    if (!whole)
        return;
    print_head(v, server, whole);
    if (fclose(whole) == 0)
        for (const char *line = text; *line;) {
            const size_t len = strcspn(line, "\n");

            fprintf(to, "%.*s\n", (int)fitting(line, len, width), line);
            line += len + (line[len] == '\n');
        }
    free(text);
}

void cluster_table_slots(const struct cluster_view *v, FILE *to)
{
    for (uint32_t i = 0; i < v->n_slots; i++) {
        const struct cluster_slot *s = &v->slots[i];

        labelled("slot", s->slot, to);
        labelled("  job", s->job, to);
        ratio(s->prompting ? "  reads" : "  read", s->prompt_done, s->prompt, to);
        labelled(" cached", s->cached, to);
        labelled("  tokens", s->tokens, to);
        ratio("  context", s->prompt_done + s->tokens, s->ctx, to);
        fprintf(to, "  %.1f s\n", isnan(s->seconds) ? 0 : s->seconds);
    }
}
