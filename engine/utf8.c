/* SPDX-License-Identifier: Apache-2.0 */
/*
 * UTF-8: one decoder for everything that has to know what is valid, and the streaming filter on top of it.
 *
 * A broken sequence is replaced by one U+FFFD for each maximal part that could have begun a valid sequence
 * (the practice the Unicode standard recommends in 3.9, and what Python and browsers do).
 */
#include "engine/utf8.h"

#include "engine/tokenizer.h"

#include <string.h>

static const char replacement[] = "\xef\xbf\xbd"; /* U+FFFD */

int32_t tern_utf8_sequence(const uint8_t *p, size_t n, size_t *len)
{
    uint8_t b = p[0], low = 0x80, high = 0xbf; /* allowed range of the second byte */
    size_t need;
    int32_t code;

    *len = 1;
    if (b < 0x80)
        return b + 1;
    if (b < 0xc2 || b > 0xf4)
        return 0;
    need = b < 0xe0 ? 2 : b < 0xf0 ? 3 : 4;
    code = b & (0x7f >> need);
    if (b == 0xe0)
        low = 0xa0; /* below: overlong */
    else if (b == 0xed)
        high = 0x9f; /* above: surrogates */
    else if (b == 0xf0)
        low = 0x90; /* below: overlong */
    else if (b == 0xf4)
        high = 0x8f; /* above: past U+10FFFF */
    for (; *len < need; ++*len) {
        if (*len == n)
            return -1;
        if (p[*len] < low || p[*len] > high)
            return 0;
        code = code << 6 | (p[*len] & 0x3f);
        low = 0x80;
        high = 0xbf;
    }
    return code + 1;
}

/* Number of leading ASCII bytes, eight at a time. */
static size_t ascii_prefix(const uint8_t *p, size_t n)
{
    size_t i = 0;
    uint64_t eight;

    for (; n - i >= 8; i += 8) {
        memcpy(&eight, p + i, 8);
        if (eight & 0x8080808080808080u)
            break;
    }
    while (i < n && p[i] < 0x80)
        i++;
    return i;
}

size_t tern_utf8_valid_prefix(const uint8_t *p, size_t n)
{
    size_t i = 0, len;

    while (i < n) {
        if (p[i] < 0x80) {
            i += ascii_prefix(p + i, n - i);
            continue;
        }
        if (tern_utf8_sequence(p + i, n - i, &len) <= 0)
            break;
        i += len;
    }
    return i;
}

size_t tern_utf8_put(uint32_t code, char *out)
{
    if (code < 0x80) {
        out[0] = (char)code;
        return 1;
    }
    if (code < 0x800) {
        out[0] = (char)(0xc0 | code >> 6);
        out[1] = (char)(0x80 | (code & 0x3f));
        return 2;
    }
    if (code < 0x10000) {
        out[0] = (char)(0xe0 | code >> 12);
        out[1] = (char)(0x80 | (code >> 6 & 0x3f));
        out[2] = (char)(0x80 | (code & 0x3f));
        return 3;
    }
    out[0] = (char)(0xf0 | code >> 18);
    out[1] = (char)(0x80 | (code >> 12 & 0x3f));
    out[2] = (char)(0x80 | (code >> 6 & 0x3f));
    out[3] = (char)(0x80 | (code & 0x3f));
    return 4;
}

static size_t put_replacement(char *out)
{
    memcpy(out, replacement, 3);
    return 3;
}

/* Writes what the stream's next byte settles.  u->held is always a valid beginning of at most 3 bytes. */
static size_t feed_byte(struct tern_utf8 *u, uint8_t byte, char *out)
{
    size_t n_out = 0, len;
    int32_t r;

    u->held[u->n++] = byte;
    r = tern_utf8_sequence(u->held, u->n, &len);
    if (r < 0)
        return 0;
    if (r == 0 && len < u->n) {
        /* The held part is broken by this byte, which starts afresh. */
        n_out = put_replacement(out);
        u->held[0] = byte;
        u->n = 1;
        r = tern_utf8_sequence(u->held, 1, &len);
        if (r < 0)
            return n_out;
    }
    if (r == 0) {
        n_out += put_replacement(out + n_out);
    } else {
        memcpy(out + n_out, u->held, u->n);
        n_out += u->n;
    }
    u->n = 0;
    return n_out;
}

size_t tern_utf8_feed(struct tern_utf8 *u, const char *bytes, size_t n, char *out)
{
    const uint8_t *p = (const uint8_t *)bytes;
    size_t i = 0, n_out = 0;

    while (i < n) {
        if (u->n == 0) {
            size_t run = tern_utf8_valid_prefix(p + i, n - i);

            if (run > 0)
                memcpy(out + n_out, p + i, run);
            n_out += run;
            i += run;
            if (i == n)
                break;
        }
        n_out += feed_byte(u, p[i++], out + n_out);
    }
    return n_out;
}

size_t tern_utf8_flush(struct tern_utf8 *u, char *out)
{
    size_t n_out = u->n > 0 ? put_replacement(out) : 0;

    u->n = 0;
    return n_out;
}
