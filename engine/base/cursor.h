/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading bytes one cannot trust.
 *
 * A cursor walks over borrowed bytes, little-endian, with checks that cannot wrap.  A read that does not fit
 * returns false, leaves the output untouched and marks the cursor bad; all later reads fail too, so a
 * parser may check once per record.
 */
#ifndef TERN_ENGINE_BASE_CURSOR_H
#define TERN_ENGINE_BASE_CURSOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A borrowed slice of bytes; not terminated, never freed. */
struct tern_str {
    const char *ptr;
    size_t len;
};

struct tern_cursor {
    const uint8_t *begin;
    const uint8_t *at;
    const uint8_t *end;
    bool bad;
};

void tern_cursor_init(struct tern_cursor *c, const void *bytes, size_t len);

static inline size_t tern_cursor_left(const struct tern_cursor *c)
{
    return (size_t)(c->end - c->at);
}

static inline size_t tern_cursor_offset(const struct tern_cursor *c)
{
    return (size_t)(c->at - c->begin);
}

bool tern_cursor_u8(struct tern_cursor *c, uint8_t *out);
bool tern_cursor_u16(struct tern_cursor *c, uint16_t *out);
bool tern_cursor_u32(struct tern_cursor *c, uint32_t *out);
bool tern_cursor_u64(struct tern_cursor *c, uint64_t *out);
bool tern_cursor_f32(struct tern_cursor *c, float *out);
bool tern_cursor_f64(struct tern_cursor *c, double *out);

/* Borrows n bytes. */
bool tern_cursor_bytes(struct tern_cursor *c, uint64_t n, const uint8_t **out);
bool tern_cursor_skip(struct tern_cursor *c, uint64_t n);

/* The two arguments of "%.*s": at most 80 bytes of a string from outside, which is enough for a sentence. */
#define TERN_STR_ARGS(s) (int)((s).len < 80 ? (s).len : 80), (s).ptr

static inline bool tern_str_eq(struct tern_str a, struct tern_str b)
{
    return a.len == b.len && (a.len == 0 || __builtin_memcmp(a.ptr, b.ptr, a.len) == 0);
}

/* Compares with a terminated string. */
static inline bool tern_str_is(struct tern_str a, const char *z)
{
    size_t n = __builtin_strlen(z);
    return a.len == n && __builtin_memcmp(a.ptr, z, n) == 0;
}

#endif
