/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Z85, ZeroMQ's text form of keys (its RFC 32): each 4 bytes, big-endian, are 5 digits in base 85.
 */
#include "proto/keys.h"

static const char digits[] =
    "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#";

void tern_key_to_z85(const uint8_t key[static TERN_KEY_BYTES], char out[static TERN_Z85_CHARS + 1])
{
    for (unsigned i = 0; i < TERN_KEY_BYTES / 4; i++) {
        const uint8_t *p = key + 4 * i;
        uint32_t v = (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];

        for (unsigned j = 5; j-- > 0; v /= 85)
            out[5 * i + j] = digits[v % 85];
    }
    out[TERN_Z85_CHARS] = '\0';
}

bool tern_key_from_z85(const char *text, size_t len, uint8_t out[static TERN_KEY_BYTES])
{
    uint8_t key[TERN_KEY_BYTES];

    if (len != TERN_Z85_CHARS)
        return false;
    for (unsigned i = 0; i < TERN_KEY_BYTES / 4; i++) {
        uint64_t v = 0;

        for (unsigned j = 0; j < 5; j++) {
            uint32_t d = 0;

            while (d < 85 && digits[d] != text[5 * i + j])
                d++;
            if (d == 85)
                return false;
            v = v * 85 + d;
        }
        /* Five digits can say more than 32 bits. */
        if (v > UINT32_MAX)
            return false;
        for (unsigned j = 0; j < 4; j++)
            key[4 * i + j] = (uint8_t)(v >> (24 - 8 * j));
    }
    for (unsigned i = 0; i < TERN_KEY_BYTES; i++)
        out[i] = key[i];
    return true;
}
