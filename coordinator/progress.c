/* SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/progress.h"

#include "coordinator/interrupt.h"

#include "engine/base/log.h"

#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define QUIET_START_MS 500u
#define REDRAW_MS      100u  /* on a terminal */
#define LINE_EVERY_MS  5000u /* elsewhere */

void progress_begin(struct progress *p, const char *what, bool quiet)
{
    p->what = what;
    p->quiet = quiet;
    p->terminal = isatty(STDERR_FILENO) == 1;
    p->drawn = false;
    p->begin_ms = tern_now_ms();
    p->next_ms = p->begin_ms + QUIET_START_MS;
}

static unsigned columns(void)
{
    struct winsize w;

    return ioctl(STDERR_FILENO, TIOCGWINSZ, &w) == 0 && w.ws_col > 0 ? w.ws_col : 80;
}

/* One line of at most `cols` columns: a wrapped one could not be drawn over.  The bar shrinks first, then the
 * name is cut, in front: the end of a file's name says more. */
size_t progress_line(char out[static PROGRESS_LINE], unsigned cols, const char *what, double percent,
                     double mb)
{
    const size_t n = strlen(what), room = cols < PROGRESS_LINE ? cols : PROGRESS_LINE;
    char tail[40], bar[31];
    size_t n_tail, width, filled, cut = 0;

    (void)snprintf(tail, sizeof tail, "%3.0f %% of %.0f MB", percent, mb);
    n_tail = strlen(tail);
    width = room > n + n_tail + 5 ? room - n - n_tail - 5 : 0; /* the last column stays free */
    width = width < sizeof bar - 1 ? width : sizeof bar - 1;
    if (width >= 4) {
        filled = (size_t)(percent * (double)width / 100.0);
        filled = filled < width ? filled : width;
        memset(bar, '#', filled);
        memset(bar + filled, '.', width - filled);
        bar[width] = '\0';
        return (size_t)snprintf(out, PROGRESS_LINE, "%s [%s] %s", what, bar, tail);
    }
    if (n + n_tail + 2 > room)
        cut = n + n_tail + 2 - room < n ? n + n_tail + 2 - room : n;
    while (((unsigned char)what[cut] & 0xc0) == 0x80) /* no half character */
        cut++;
    return (size_t)snprintf(out, PROGRESS_LINE, "%s %s", what + cut, tail);
}

static void draw(struct progress *p, uint64_t done, uint64_t total)
{
    uint64_t now;
    double percent;

    if (p->quiet || total == 0)
        return;
    now = tern_now_ms();
    if (now < p->next_ms)
        return;
    percent = 100.0 * (double)(done < total ? done : total) / (double)total;
    if (p->terminal) {
        char line[PROGRESS_LINE];

        (void)progress_line(line, columns(), p->what, percent, (double)total / 1e6);
        fprintf(stderr, "\r%s\033[K", line);
        fflush(stderr);
        p->drawn = true;
        p->next_ms = now + REDRAW_MS;
    } else {
        fprintf(stderr, "%s: %.0f %% of %.0f MB\n", p->what, percent, (double)total / 1e6);
        p->next_ms = now + LINE_EVERY_MS;
    }
}

bool progress_update(void *arg, uint64_t done, uint64_t total)
{
    draw(arg, done, total);
    return interrupt_signal() == 0;
}

void progress_end(struct progress *p)
{
    if (p->drawn) {
        fputs("\r\033[K", stderr);
        fflush(stderr);
    }
    p->drawn = false;
}
