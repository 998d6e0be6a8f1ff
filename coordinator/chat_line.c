/* SPDX-License-Identifier: Apache-2.0 */
/* Typed and piped lines: see chat_line.h. */
#include "coordinator/chat_line.h"

#include "coordinator/interrupt.h"
#include "engine/utf8.h"

#include <errno.h>
#include <fcntl.h>
#include <histedit.h>
#include <limits.h>
#include <locale.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define HISTORY_LINES 1000
#define READ_BYTES    65536

struct chat_line {
    EditLine *el; /* NULL: not a terminal */
    History *history;
    char path[PATH_MAX]; /* of the history; empty: none */
    const char *prompt;
    char *text; /* [cap], the line so far */
    size_t n, cap;
    char buf[READ_BYTES]; /* read and not yet taken: [at, end) */
    size_t at, end;
};

/* -- signals while somebody types ------------------------------------------------------------------------ */

/* libedit would catch them itself, but it passes each on to all of the process group, whoever was meant. */
static volatile sig_atomic_t stop_asked, resized;

static void on_stop(int sig)
{
    (void)sig;
    stop_asked = 1;
}

static void on_resize(int sig)
{
    (void)sig;
    resized = 1;
}

/* Ctrl-Z gives the terminal back as it was before; a window of another size is drawn anew. */
static void obey_signals(struct chat_line *l)
{
    if (resized) {
        resized = 0;
        el_resize(l->el);
    }
    if (stop_asked) {
        stop_asked = 0;
        el_set(l->el, EL_PREP_TERM, 0);
        raise(SIGSTOP);
        el_set(l->el, EL_PREP_TERM, 1);
        el_set(l->el, EL_REFRESH);
    }
}

static const char *gets_with_signals(struct chat_line *l, int *n)
{
    const struct sigaction stop = { .sa_handler = on_stop }, resize = { .sa_handler = on_resize };
    struct sigaction old_stop, old_resize;
    const char *line;

    sigaction(SIGTSTP, &stop, &old_stop);
    sigaction(SIGWINCH, &resize, &old_resize);
    el_resize(l->el);
    line = el_gets(l->el, n);
    sigaction(SIGTSTP, &old_stop, NULL);
    sigaction(SIGWINCH, &old_resize, NULL);
    return line;
}

/* -- bytes ----------------------------------------------------------------------------------------------- */

/* The next byte of stdin: 1, 0 at the end, -1 when a signal came or reading failed (errno). */
static int next_byte(struct chat_line *l, char *out)
{
    while (l->at == l->end) {
        struct pollfd p = { .fd = STDIN_FILENO, .events = POLLIN };
        ssize_t got;

        if (interrupt_signal()) {
            errno = EINTR;
            return -1;
        }
        if (l->el)
            obey_signals(l);
        if (poll(&p, 1, INTERRUPT_LOOK_MS) <= 0)
            continue;
        got =
            read(STDIN_FILENO, l->buf, l->el ? 1 : sizeof l->buf); /* what is typed ahead stays where it is */
        if (got < 0 && (errno == EINTR || errno == EAGAIN))
            continue;
        if (got <= 0)
            return (int)got;
        l->at = 0;
        l->end = (size_t)got;
    }
    *out = l->buf[l->at++];
    return 1;
}

/* For libedit: one character.  Bytes that are no UTF-8 become U+FFFD. */
static int next_char(EditLine *el, wchar_t *out)
{
    struct chat_line *l;
    char bytes[4];
    size_t n = 0, len;
    int32_t code = -1;

    el_get(el, EL_CLIENTDATA, &l);
    while (code < 0) {
        int got = next_byte(l, &bytes[n]);

        if (got <= 0)
            return got;
        n++;
        code = tern_utf8_sequence((const uint8_t *)bytes, n, &len);
    }
    if (code == 0 && len < n)
        l->at--; /* the byte that broke the sequence is a character's beginning */
    *out = code ? (wchar_t)(code - 1) : 0xfffd;
    return 1;
}

/* -- history --------------------------------------------------------------------------------------------- */

/* Makes every folder of path that is missing. */
static void make_folders(char *path)
{
    for (char *slash = strchr(path + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        (void)mkdir(path, 0700);
        *slash = '/';
    }
}

static bool history_path(char *path, size_t cap)
{
    const char *state = getenv("XDG_STATE_HOME"), *home = getenv("HOME");
    int n;

    if (state && state[0] == '/')
        n = snprintf(path, cap, "%s/tern/history", state);
    else if (home && home[0] == '/')
        n = snprintf(path, cap, "%s/.local/state/tern/history", home);
    else
        return false;
    return n > 0 && (size_t)n < cap;
}

/* The file belongs to the user alone before anything is written to it. */
static bool history_ready(struct chat_line *l)
{
    int fd;

    make_folders(l->path);
    fd = open(l->path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOCTTY | O_NONBLOCK, 0600);
    if (fd < 0)
        return false;
    (void)fchmod(fd, 0600);
    close(fd);
    return true;
}

static void history_open(struct chat_line *l, bool keep)
{
    HistEvent ev;

    l->history = history_init();
    if (!l->history)
        return;
    history(l->history, &ev, H_SETSIZE, HISTORY_LINES);
    history(l->history, &ev, H_SETUNIQUE, 1);
    el_set(l->el, EL_HIST, history, l->history);
    if (!keep || !history_path(l->path, sizeof l->path) || !history_ready(l))
        l->path[0] = '\0';
    else
        history(l->history, &ev, H_LOAD, l->path);
}

static void history_add(struct chat_line *l, const char *line)
{
    HistEvent ev;

    if (!l->history || line[strspn(line, " \t\r\n\\")] == '\0')
        return;
    history(l->history, &ev, H_ENTER, line);
    if (l->path[0])
        history(l->history, &ev, H_SAVE, l->path);
}

/* -- life ------------------------------------------------------------------------------------------------ */

static char *show_prompt(EditLine *el)
{
    struct chat_line *l;

    el_get(el, EL_CLIENTDATA, &l);
    return (char *)(uintptr_t)l->prompt;
}

static enum tern_status terminal_open(struct chat_line *l, bool keep, struct tern_err *err)
{
    /* libedit thinks in the characters of the locale; of the C locale's Debian has one with all of them. */
    if (!setlocale(LC_CTYPE, "") || MB_CUR_MAX == 1)
        (void)setlocale(LC_CTYPE, "C.UTF-8");
    l->el = el_init("tern", stdin, isatty(STDOUT_FILENO) ? stdout : stderr, stderr);
    if (!l->el)
        return TERN_FAIL(err, TERN_ERR_IO, "the terminal cannot be used for editing a line");
    el_set(l->el, EL_CLIENTDATA, l);
    el_set(l->el, EL_PROMPT, show_prompt);
    el_set(l->el, EL_EDITOR, "emacs");
    el_set(l->el, EL_GETCFN, next_char);
    history_open(l, keep);
    el_set(l->el, EL_BIND, "^R", "em-inc-search-prev", NULL);
    el_set(l->el, EL_BIND, "^I", "ed-insert", NULL); /* of what is pasted */
    el_source(l->el, NULL);
    return TERN_OK;
}

enum tern_status chat_line_open(bool keep, struct chat_line **out, struct tern_err *err)
{
    struct chat_line *l = calloc(1, sizeof *l);
    enum tern_status st = TERN_OK;

    if (!l)
        return TERN_FAIL(err, TERN_ERR_MEMORY, "no memory to read lines");
    if (isatty(STDIN_FILENO) && (st = terminal_open(l, keep, err))) {
        free(l);
        return st;
    }
    *out = l;
    return TERN_OK;
}

void chat_line_close(struct chat_line **lp)
{
    struct chat_line *l = *lp;

    if (!l)
        return;
    if (l->el)
        el_end(l->el);
    if (l->history)
        history_end(l->history);
    free(l->text);
    free(l);
    *lp = NULL;
}

bool chat_line_is_terminal(const struct chat_line *l)
{
    return l->el != NULL;
}

/* -- lines ----------------------------------------------------------------------------------------------- */

static enum tern_status append(struct chat_line *l, const char *text, size_t n, size_t max,
                               struct tern_err *err)
{
    if (n > max || l->n > max - n)
        return TERN_FAIL(err, TERN_ERR_LIMIT, "a message is longer than %zu bytes", max);
    if (l->n + n + 1 > l->cap) {
        size_t cap = 2 * (l->n + n) + 256;
        char *bigger = realloc(l->text, cap);

        if (!bigger)
            return TERN_FAIL(err, TERN_ERR_MEMORY, "no memory for a message of %zu bytes", l->n + n);
        l->text = bigger;
        l->cap = cap;
    }
    if (n)
        memcpy(l->text + l->n, text, n);
    l->n += n;
    l->text[l->n] = '\0';
    return TERN_OK;
}

/* A signal, or why stdin cannot be read. */
static enum tern_status broken(struct tern_err *err)
{
    if (interrupt_signal())
        return TERN_AGAIN;
    return TERN_FAIL_SYS(err, TERN_ERR_IO, errno, "cannot read stdin: %s", strerror(errno));
}

/* One typed line behind what there is, its newline included. */
static enum tern_status read_typed(struct chat_line *l, size_t max, struct tern_err *err)
{
    const char *line;
    int n = 0;

    errno = 0;
    line = gets_with_signals(l, &n);
    if (line && n > 0) {
        history_add(l, line);
        return append(l, line, (size_t)n, max, err);
    }
    return n < 0 || interrupt_signal() ? broken(err) : TERN_END;
}

static enum tern_status read_piped(struct chat_line *l, size_t max, struct tern_err *err)
{
    const size_t before = l->n;
    enum tern_status st = TERN_OK;
    char c = 0;

    while (!st && c != '\n') {
        const char *at, *newline;
        int got = next_byte(l, &c);

        if (got < 0)
            return broken(err);
        if (got == 0)
            return l->n > before ? TERN_OK : TERN_END;
        at = l->buf + --l->at; /* and what has been read with it, up to the line's end */
        newline = memchr(at, '\n', l->end - l->at);
        got = (int)(newline ? newline + 1 - at : (ptrdiff_t)(l->end - l->at));
        st = append(l, at, (size_t)got, max, err);
        l->at += (size_t)got;
        c = l->buf[l->at - 1];
    }
    return st;
}

enum tern_status chat_line_read(struct chat_line *l, size_t max, const char **text, size_t *len,
                                struct tern_err *err)
{
    enum tern_status st;

    l->n = 0;
    l->prompt = "> ";
    for (;;) {
        size_t before = l->n;

        st = l->el ? read_typed(l, max + 2, err) : read_piped(l, max + 2, err);
        if (st == TERN_END && before > 0)
            break; /* the input ends behind a backslash: what there is counts */
        if (st)
            return st;
        l->n -= l->n > before && l->text[l->n - 1] == '\n';
        l->n -= l->n > before && l->text[l->n - 1] == '\r';
        if (l->n == before || l->text[l->n - 1] != '\\')
            break;
        l->text[l->n - 1] = '\n';
        l->prompt = ". ";
    }
    l->text[l->n] = '\0';
    *text = l->text;
    *len = l->n;
    return TERN_OK;
}
