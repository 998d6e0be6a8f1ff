/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The growing string of http_server.h.
 */
#include "coordinator/serve/http_server.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Room for `more` bytes and a NUL. */
static bool reserve(struct http_text *t, size_t more)
{
    size_t need, cap = t->cap ? t->cap : 256;
    char *bigger;

    if (t->failed || more > SIZE_MAX / 4 - t->len) {
        t->failed = true;
        return false;
    }
    need = t->len + more + 1;
    if (need <= t->cap)
        return true;
    while (cap < need)
        cap *= 2;
    bigger = realloc(t->ptr, cap);
    if (!bigger) {
        t->failed = true;
        return false;
    }
    t->ptr = bigger;
    t->cap = cap;
    return true;
}

void http_text_add(struct http_text *t, const void *data, size_t len)
{
    if (!reserve(t, len))
        return;
    if (len)
        memcpy(t->ptr + t->len, data, len);
    t->len += len;
    t->ptr[t->len] = '\0';
}

void http_text_addf(struct http_text *t, const char *fmt, ...)
{
    va_list ap;
    int n;

    va_start(ap, fmt);
    n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    if (n < 0 || !reserve(t, (size_t)n)) {
        t->failed = true;
        return;
    }
    va_start(ap, fmt);
    vsnprintf(t->ptr + t->len, (size_t)n + 1, fmt, ap);
    va_end(ap);
    t->len += (size_t)n;
}

void http_text_free(struct http_text *t)
{
    free(t->ptr);
    memset(t, 0, sizeof *t);
}
