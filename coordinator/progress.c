/* SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/progress.h"

#include "coordinator/interrupt.h"

#include "engine/base/log.h"

#include <stdio.h>
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
        enum { WIDTH = 30 };
        char bar[WIDTH + 1];
        int filled = (int)(percent * WIDTH / 100.0);

        for (int i = 0; i < WIDTH; i++)
            bar[i] = i < filled ? '#' : '.';
        bar[WIDTH] = '\0';
        fprintf(stderr, "\r%s [%s] %3.0f %% of %.0f MB ", p->what, bar, percent, (double)total / 1e6);
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
