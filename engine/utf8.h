/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is valid UTF-8 (RFC 3629: no overlong forms, no surrogates, nothing above U+10FFFF).  The streaming
 * side is declared in engine/tokenizer.h and lives in the same source.
 */
#ifndef TERN_ENGINE_UTF8_H
#define TERN_ENGINE_UTF8_H

#include <stddef.h>
#include <stdint.h>

/* Looks at the sequence that starts at p (n >= 1 bytes are there) and puts how many bytes of it are well
 * formed into *len (at least 1).  Returns > 0  the code point + 1 of a whole sequence of *len bytes, 0
 * broken: the first *len bytes can never become valid, whatever follows, -1  incomplete: all n = *len bytes
 * are a valid beginning. */
int32_t tern_utf8_sequence(const uint8_t *p, size_t n, size_t *len);

/* Length of the longest prefix of p[0..n) that is valid UTF-8. */
size_t tern_utf8_valid_prefix(const uint8_t *p, size_t n);

/* Code point (a valid one) to at most 4 bytes; returns how many. */
size_t tern_utf8_put(uint32_t code, char *out);

#endif
