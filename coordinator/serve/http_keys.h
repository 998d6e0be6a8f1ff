/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The API keys of a server: a file with a line `key` or `name key` each, '#' begins a comment line.
 *
 * Read again whenever it has changed, with the next request: a removed key ends at once, a file that has
 * become unreadable leaves the old keys in force with a warning, one that is gone lets nobody in.  Like a key
 * file of the links it may not be open to others.  Only digests are kept; they are compared in constant
 * time, all of them, so that neither a key nor its length nor its place in the file shows in the clock.
 *
 * Thread: any.
 */
#ifndef TERN_COORDINATOR_SERVE_HTTP_KEYS_H
#define TERN_COORDINATOR_SERVE_HTTP_KEYS_H

#include "engine/base/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define HTTP_KEY_DIGEST_BYTES 32
#define HTTP_MAX_KEYS         1024
#define HTTP_MAX_KEY_BYTES    256
#define HTTP_MAX_KEY_NAME     63

struct http_key {
    uint8_t digest[HTTP_KEY_DIGEST_BYTES]; /* of the key, keyed with `salt` */
    uint64_t client;                       /* a hash of the name, or of the digest without one */
    unsigned line;                         /* of the file */
    bool is_short;                         /* so short that it can be guessed */
};

/* Parses the text of such a file into a new list of HTTP_MAX_KEYS, n of them used (tests, fuzzing).  `path`
 * is what sentences call it; keys are never quoted. */
enum tern_status http_keys_parse(const char *path, const char *text, size_t len,
                                 const uint8_t salt[static HTTP_KEY_DIGEST_BYTES], struct http_key **out,
                                 size_t *n, struct tern_err *err) TERN_MUST_CHECK;

struct http_keys;

enum tern_status http_keys_open(const char *path, struct http_keys **out,
                                struct tern_err *err) TERN_MUST_CHECK;
void http_keys_close(struct http_keys **k);

/* Is `key` ([len]) one of them, and whose? */
bool http_keys_find(struct http_keys *k, const char *key, size_t len, uint64_t *client);

#endif
