/* SPDX-License-Identifier: Apache-2.0 */
/* Safe text for a terminal: see terminal_text.h. */
#include "coordinator/terminal_text.h"

#include <string.h>

static size_t put(char *out, const char *text)
{
    size_t n = strlen(text);

    memcpy(out, text, n);
    return n;
}

size_t terminal_text_filter(struct terminal_text *t, const char *text, size_t n, char *out)
{
    size_t at = 0;

    for (size_t i = 0; i < n; i++) {
        const unsigned char c = (unsigned char)text[i];

        if (t->lead) {
            t->lead = 0;
            if (c >= 0x80 && c < 0xa0) {
                at += put(out + at, "\xef\xbf\xbd");
                continue;
            }
            out[at++] = (char)0xc2;
        }
        if (c == 0xc2) {
            t->lead = c;
        } else if (c == 0x7f || (c < 0x20 && c != '\n' && c != '\t')) {
            out[at++] = '^';
            out[at++] = (char)(c ^ 0x40);
        } else {
            out[at++] = (char)c;
        }
    }
    return at;
}

bool terminal_text_write(struct terminal_text *t, FILE *to, bool terminal, const char *text, size_t n)
{
    char out[TERMINAL_TEXT_OUT];

    if (!terminal)
        return fwrite(text, 1, n, to) == n;
    while (n) {
        const size_t some = n < TERMINAL_TEXT_IN ? n : TERMINAL_TEXT_IN;
        const size_t n_out = terminal_text_filter(t, text, some, out);

        if (fwrite(out, 1, n_out, to) != n_out)
            return false;
        text += some;
        n -= some;
    }
    return true;
}
