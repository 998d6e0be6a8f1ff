/* SPDX-License-Identifier: Apache-2.0 */
/* The terminal as a whole: see full_screen.h. */
#include "coordinator/full_screen.h"

#include "engine/utf8.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

/* Alternate screen, no cursor, no wrapping at the end of a line; and back. */
#define ENTER "\033[?1049h\033[?25l\033[?7l\033[2J"
#define LEAVE "\033[?7h\033[?25h\033[?1049l"

static const int deadly[] = {
    SIGINT,  SIGTERM, SIGHUP, SIGQUIT, SIGABRT,
#ifndef __SANITIZE_ADDRESS__ /* which tells more about these than we do */
    SIGSEGV, SIGBUS,  SIGFPE, SIGILL,
#endif
};
#define N_DEADLY (sizeof deadly / sizeof deadly[0])

static struct termios before;
static volatile sig_atomic_t keys; /* stdin is a terminal, and `before` what it was */
static volatile sig_atomic_t shown;
static volatile sig_atomic_t stop_asked, changed;

/* -- in and out ------------------------------------------------------------------------------------------ */

/* Also in handlers: write and tcsetattr are safe there. */
static void leave(void)
{
    if (!shown)
        return;
    shown = 0;
    (void)!write(STDOUT_FILENO, LEAVE, sizeof LEAVE - 1);
    if (keys)
        (void)tcsetattr(STDIN_FILENO, TCSANOW, &before);
}

static void enter(void)
{
    struct termios raw = before;

    raw.c_lflag &= ~(tcflag_t)(ICANON | ECHO);
    raw.c_cc[VMIN] = 1;
    raw.c_cc[VTIME] = 0;
    if (keys)
        (void)tcsetattr(STDIN_FILENO, TCSANOW, &raw);
    shown = 1;
    (void)!write(STDOUT_FILENO, ENTER, sizeof ENTER - 1);
}

static void on_death(int sig)
{
    const int was = errno;

    leave();
    errno = was;
    (void)raise(sig); /* SA_RESETHAND: what it does by itself, once the handler has returned */
}

static void on_stop(int sig)
{
    (void)sig;
    stop_asked = 1;
}

static void on_resize(int sig)
{
    (void)sig;
    changed = 1;
}

enum tern_status full_screen_begin(struct tern_err *err)
{
    struct sigaction death = { .sa_handler = on_death, .sa_flags = (int)SA_RESETHAND },
                     stop = { .sa_handler = on_stop }, resize = { .sa_handler = on_resize };

    if (isatty(STDIN_FILENO)) {
        if (tcgetattr(STDIN_FILENO, &before) != 0)
            return TERN_FAIL_SYS(err, TERN_ERR_IO, errno, "cannot ask the terminal for its settings: %s",
                                 strerror(errno));
        keys = 1;
    }
    sigfillset(&death.sa_mask);
    for (size_t i = 0; i < N_DEADLY; i++)
        sigaction(deadly[i], &death, NULL);
    sigaction(SIGTSTP, &stop, NULL);
    sigaction(SIGWINCH, &resize, NULL);
    if (atexit(leave) != 0)
        return TERN_FAIL(err, TERN_ERR_MEMORY, "no memory to use the terminal");
    enter();
    return TERN_OK;
}

void full_screen_end(void)
{
    leave();
}

/* -- keys and size --------------------------------------------------------------------------------------- */

void full_screen_size(unsigned *columns, unsigned *rows)
{
    struct winsize w;

    *columns = 80;
    *rows = 24;
    if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &w) == 0 && w.ws_col && w.ws_row) {
        *columns = w.ws_col;
        *rows = w.ws_row;
    }
}

int full_screen_key(int timeout_ms)
{
    struct pollfd p = { .fd = keys ? STDIN_FILENO : -1, .events = POLLIN };
    unsigned char key;
    const int ready = stop_asked || changed ? 0 : poll(&p, 1, timeout_ms);

    if (stop_asked) {
        stop_asked = 0;
        leave();
        (void)raise(SIGSTOP);
        enter();
        changed = 1;
    }
    if (changed) {
        changed = 0;
        return FULL_SCREEN_CHANGED;
    }
    if (ready <= 0)
        return FULL_SCREEN_NOTHING;
    if (read(STDIN_FILENO, &key, 1) == 1)
        return key;
    (void)raise(SIGHUP); /* the terminal is gone */
    return FULL_SCREEN_NOTHING;
}

/* -- drawing --------------------------------------------------------------------------------------------- */

/* Bytes of the first `columns` characters. */
static size_t cut(const char *line, size_t n, unsigned columns)
{
    size_t at = 0, len;

    while (at < n && columns--) {
        (void)tern_utf8_sequence((const uint8_t *)line + at, n - at, &len);
        at += len;
    }
    return at;
}

static bool write_all(const char *text, size_t n)
{
    while (n) {
        const ssize_t put = write(STDOUT_FILENO, text, n);

        if (put < 0 && errno != EINTR)
            return false;
        if (put > 0) {
            text += put;
            n -= (size_t)put;
        }
    }
    return true;
}

bool full_screen_draw(const char *text, size_t n)
{
    char *out = NULL;
    size_t n_out = 0;
    unsigned columns, rows, row = 0;
    FILE *to = open_memstream(&out, &n_out);
    bool ok;

    if (!to)
        return true; /* this time not */
    full_screen_size(&columns, &rows);
    fputs("\033[H", to);
    while (n && row < rows) {
        const char *end = memchr(text, '\n', n);
        const size_t len = end ? (size_t)(end - text) : n;

        fprintf(to, "%s%.*s\033[K", row ? "\r\n" : "", (int)cut(text, len, columns), text);
        row++;
        text += len + (end != NULL);
        n -= len + (end != NULL);
    }
    fputs("\033[J", to);
    ok = fclose(to) == 0;
    if (ok)
        ok = write_all(out, n_out);
    free(out);
    return ok;
}
