/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/base/status.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>

static const struct {
    enum tern_status status;
    const char *name;
    int exit_code;
} names[] = {
    { TERN_OK, "ok", EX_OK },
    { TERN_AGAIN, "again", EX_TEMPFAIL },
    { TERN_END, "end", EX_OK },
    { TERN_ERR_USAGE, "usage", EX_USAGE },
    { TERN_ERR_FORMAT, "format", EX_DATAERR },
    { TERN_ERR_UNSUPPORTED, "unsupported", EX_DATAERR },
    { TERN_ERR_LIMIT, "limit", EX_DATAERR },
    { TERN_ERR_AUTH, "auth", EX_NOPERM },
    { TERN_ERR_STATE, "state", EX_PROTOCOL },
    { TERN_ERR_PEER, "peer", EX_UNAVAILABLE },
    { TERN_ERR_BUSY, "busy", EX_TEMPFAIL },
    { TERN_ERR_IO, "io", EX_IOERR },
    { TERN_ERR_MEMORY, "memory", EX_OSERR },
    { TERN_ERR_NUMERIC, "numeric", EX_DATAERR },
};

/* Bytes of the well-formed character at p that is no control character (C0, DEL, C1), else 0.  The zero at
 * the end of a text continues nothing. */
static size_t printable(const unsigned char *p)
{
    size_t n = *p < 0x80 ? 1 : *p >= 0xc2 && *p < 0xe0 ? 2 : *p >= 0xe0 && *p < 0xf0 ? 3 : 4;

    if (*p < 0x20 || *p == 0x7f || (*p >= 0x80 && *p < 0xc2) || *p > 0xf4)
        return 0;
    for (size_t i = 1; i < n; i++)
        if ((p[i] & 0xc0) != 0x80)
            return 0;
    /* Controls, surrogates, and what is too long or too large for its form. */
    if ((p[0] == 0xc2 && p[1] < 0xa0) || (p[0] == 0xe0 && p[1] < 0xa0) || (p[0] == 0xed && p[1] > 0x9f) ||
        (p[0] == 0xf0 && p[1] < 0x90) || (p[0] == 0xf4 && p[1] > 0x8f))
        return 0;
    return n;
}

/* Everything that could move a terminal's cursor goes, and everything that is no UTF-8, such as a character
 * cut in two at the end: a sentence may have to travel in a message (Fault), which must be text. */
static void make_printable(char *text)
{
    unsigned char *p = (unsigned char *)text;

    while (*p) {
        size_t n = printable(p);

        if (n == 0)
            *p = '?';
        p += n ? n : 1;
    }
}

enum tern_status tern_err_set(struct tern_err *err, enum tern_status status, int sys_errno, const char *file,
                              int line, const char *fmt, ...)
{
    if (err) {
        va_list ap;

        err->status = status;
        err->sys_errno = sys_errno;
        err->file = file;
        err->line = line;
        va_start(ap, fmt);
        vsnprintf(err->text, sizeof err->text, fmt, ap);
        va_end(ap);
        make_printable(err->text);
    }
    return status;
}

const char *tern_status_name(enum tern_status status)
{
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (names[i].status == status)
            return names[i].name;
    return "unknown";
}

int tern_status_exit_code(enum tern_status status)
{
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (names[i].status == status)
            return names[i].exit_code;
    return EX_SOFTWARE;
}

void tern_bug(const char *file, int line, const char *what)
{
    fprintf(stderr, "tern: bug at %s:%d: %s\n", file, line, what);
    abort();
}
