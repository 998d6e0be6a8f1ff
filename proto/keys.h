/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Key files and identities.
 *
 * A key file holds a Curve25519 pair as text, made by `tern keygen`:
 *
 *     # tern key file: keep it secret, mode 0600
 *     public <40 characters of Z85>
 *     secret <40 characters of Z85>
 *
 * A file that others than its owner can read, that belongs to somebody else, that is a symbolic link or no
 * regular file, or whose public half does not belong to the secret one is refused.  Secrets live in guarded
 * memory (sodium_malloc) and are wiped.
 */
#ifndef TERN_PROTO_KEYS_H
#define TERN_PROTO_KEYS_H

#include "engine/base/limits.h"
#include "engine/base/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct tern_key {
    uint8_t public_key[TERN_KEY_BYTES];
    uint8_t *secret_key; /* TERN_KEY_BYTES in guarded memory */
};

/* sodium_init; once, in main. */
enum tern_status tern_keys_init(struct tern_err *err) TERN_MUST_CHECK;

enum tern_status tern_key_generate(struct tern_key *out, struct tern_err *err) TERN_MUST_CHECK;
enum tern_status tern_key_load(const char *path, struct tern_key *out, struct tern_err *err) TERN_MUST_CHECK;
/* Creates the file (0600, never over an existing one). */
enum tern_status tern_key_save(const char *path, const struct tern_key *key,
                               struct tern_err *err) TERN_MUST_CHECK;
/* The same to a descriptor the caller made and owns (an unlinked or memory file). */
enum tern_status tern_key_write(int fd, const struct tern_key *key, struct tern_err *err) TERN_MUST_CHECK;
/* A second owner of the same key. */
enum tern_status tern_key_copy(const struct tern_key *key, struct tern_key *out,
                               struct tern_err *err) TERN_MUST_CHECK;
void tern_key_wipe(struct tern_key *key);

/* Parses the text of a key file (tests, fuzzing). `name` is what sentences call it. */
enum tern_status tern_key_parse(const char *name, const char *text, size_t len, struct tern_key *out,
                                struct tern_err *err) TERN_MUST_CHECK;

/* 32 bytes <-> 40 characters of Z85 and a terminator; `out` is untouched when the text is not a key. */
void tern_key_to_z85(const uint8_t key[static TERN_KEY_BYTES], char out[static TERN_Z85_CHARS + 1]);
bool tern_key_from_z85(const char *text, size_t len, uint8_t out[static TERN_KEY_BYTES]);

#endif
