/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Looking tokens up: the byte alphabet of GPT-2, SentencePiece's space, and the hash from bytes to ids.
 */
#include "engine/vocab.h"

#include "engine/utf8.h"

#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

uint64_t tern_vocab_seed(void)
{
    uint64_t seed;
    struct timespec now;

    if (getrandom(&seed, sizeof seed, GRND_NONBLOCK) == (ssize_t)sizeof seed)
        return seed;
    clock_gettime(CLOCK_REALTIME, &now); /* early in boot; hard enough to guess */
    return (uint64_t)now.tv_sec * 1000000007u ^ (uint64_t)now.tv_nsec << 32 ^ (uint64_t)(uintptr_t)&seed;
}

/* The byte a character of the alphabet stands for, or -1. */
static int alphabet_byte(uint32_t code)
{
    if ((code >= 0x21 && code <= 0x7e) || (code >= 0xa1 && code <= 0xac) || (code >= 0xae && code <= 0xff))
        return (int)code;
    if (code < 0x100 || code >= 0x144)
        return -1;
    /* The 68 others in increasing order: 0x00..0x20, 0x7f..0xa0, 0xad. */
    code -= 0x100;
    if (code <= 0x20)
        return (int)code;
    return code < 0x43 ? (int)(code - 0x21 + 0x7f) : 0xad;
}

size_t tern_vocab_unmap(const char *text, size_t len, char *out, bool *whole)
{
    size_t n_out = 0, n;

    *whole = true;
    for (size_t i = 0; i < len; i += n) {
        int32_t code = tern_utf8_sequence((const uint8_t *)text + i, len - i, &n);
        int byte = code > 0 ? alphabet_byte((uint32_t)(code - 1)) : -1;

        if (byte >= 0) {
            out[n_out++] = (char)byte;
            continue;
        }
        *whole = false;
        memcpy(out + n_out, text + i, n);
        n_out += n;
    }
    return n_out;
}

size_t tern_vocab_map(const char *bytes, size_t len, char *out)
{
    size_t n = 0;

    for (size_t i = 0; i < len; i++) {
        uint32_t b = (uint8_t)bytes[i];
        bool kept = alphabet_byte(b) >= 0;

        if (!kept)
            b = b <= 0x20 ? 0x100 + b : b <= 0xa0 ? 0x121 + b - 0x7f : 0x143;
        n += tern_utf8_put(b, out + n);
    }
    return n;
}

size_t tern_vocab_spaces(const char *text, size_t len, char *out)
{
    const char *end = text + len, *begin = out;

    while (text < end) {
        const char *mark = memchr(text, TERN_SPM_SPACE[0], (size_t)(end - text));
        size_t n = (size_t)((mark ? mark : end) - text);

        memcpy(out, text, n);
        out += n;
        text += n;
        if (!mark)
            break;
        if (end - text >= 3 && memcmp(text, TERN_SPM_SPACE, 3) == 0) {
            *out++ = ' ';
            text += 3;
        } else {
            *out++ = *text++;
        }
    }
    return (size_t)(out - begin);
}

static uint64_t mix(uint64_t h)
{
    h *= 0x9e3779b97f4a7c15u;
    return h ^ h >> 32;
}

static uint32_t hash_bytes(uint64_t seed, const char *p, size_t len)
{
    uint64_t h = seed ^ len, word;

    for (; len > 8; p += 8, len -= 8) {
        memcpy(&word, p, 8);
        h = mix(h ^ word) + seed;
    }
    word = 0;
    memcpy(&word, p, len);
    h = mix(mix(h ^ word) ^ seed);
    return (uint32_t)(h ^ h >> 29);
}

uint32_t tern_vocab_find(const struct tern_vocab *v, const char *bytes, size_t len)
{
    for (uint32_t at = hash_bytes(v->seed, bytes, len);; at++) {
        uint32_t slot = v->slots[at & v->slot_mask];
        struct tern_str text;

        if (slot == 0)
            return TERN_NO_TOKEN;
        text = tern_vocab_text(v, slot - 1);
        if (text.len == len && memcmp(text.ptr, bytes, len) == 0)
            return slot - 1;
    }
}

uint32_t tern_vocab_find_plain(const struct tern_vocab *v, const char *bytes, size_t len)
{
    uint32_t id;

    if (len > v->max_plain)
        return TERN_NO_TOKEN;
    id = tern_vocab_find(v, bytes, len);
    return id != TERN_NO_TOKEN && (v->flags[id] & TERN_VOCAB_PLAIN) ? id : TERN_NO_TOKEN;
}

/* The first token of a text stays. */
static void insert(struct tern_vocab *v, uint32_t id)
{
    struct tern_str text = tern_vocab_text(v, id);
    uint32_t at = hash_bytes(v->seed, text.ptr, text.len);

    if (text.len == 0 || tern_vocab_find(v, text.ptr, text.len) != TERN_NO_TOKEN)
        return;
    while (v->slots[at & v->slot_mask] != 0)
        at++;
    v->slots[at & v->slot_mask] = id + 1;
}

enum tern_status tern_vocab_index(struct tern_vocab *v, struct tern_err *err)
{
    uint32_t n_slots = 16;

    while (n_slots < 2 * v->n)
        n_slots *= 2;
    v->slots = calloc(n_slots, sizeof *v->slots);
    if (!v->slots)
        return TERN_FAIL(err, TERN_ERR_MEMORY, "no memory to index %u tokens", v->n);
    v->slot_mask = n_slots - 1;
    v->seed = tern_vocab_seed();
    for (uint32_t id = 0; id < v->n; id++)
        if (v->flags[id] & TERN_VOCAB_PLAIN)
            insert(v, id);
    for (uint32_t id = 0; id < v->n; id++)
        if (!(v->flags[id] & TERN_VOCAB_PLAIN))
            insert(v, id);
    return TERN_OK;
}

void tern_vocab_free(struct tern_vocab *v)
{
    free(v->flags);
    free(v->offsets);
    free(v->bytes);
    free(v->slots);
    memset(v, 0, sizeof *v);
}
