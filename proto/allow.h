/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The allow-list: who may connect, and as what.
 *
 * A text file in the manner of ssh's authorized_keys, one `name role key` a line; role is `coordinator` or
 * `worker`; a key stands on one line only.  Empty lines and lines that begin with `#` are skipped.  A line
 * that cannot be read makes the whole file refused with its number: a list that is half understood is worse
 * than none.  The file must not be writable by others.
 */
#ifndef TERN_PROTO_ALLOW_H
#define TERN_PROTO_ALLOW_H

#include "engine/base/limits.h"
#include "engine/base/status.h"
#include "engine/base/watched_file.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum tern_role { TERN_ROLE_NONE = 0, TERN_ROLE_COORDINATOR = 1, TERN_ROLE_WORKER = 2 };

struct tern_allow_entry {
    char name[TERN_MAX_NAME_BYTES + 1];
    enum tern_role role;
    uint8_t key[TERN_KEY_BYTES];
};

struct tern_allow {
    char path[4096];
    struct tern_allow_entry *entries;
    size_t n;
    struct tern_watched_file watched;
};

/* Parses the text of a list (tests, fuzzing). `name` is what sentences call it. */
enum tern_status tern_allow_parse(const char *name, const char *text, size_t len,
                                  struct tern_allow_entry **entries, size_t *n,
                                  struct tern_err *err) TERN_MUST_CHECK;

enum tern_status tern_allow_open(const char *path, struct tern_allow *out,
                                 struct tern_err *err) TERN_MUST_CHECK;
void tern_allow_close(struct tern_allow *a);

/* Re-reads the file if it changed.  A changed file that cannot be read keeps the old list and logs once; a
 * file that was removed is an empty list (nobody is allowed) and logs once.  *changed says that the list
 * is another one now. */
void tern_allow_refresh(struct tern_allow *a, bool *changed);

/* NULL when the key is not listed.  Borrowed until the next refresh. */
const struct tern_allow_entry *tern_allow_find(const struct tern_allow *a,
                                               const uint8_t key[static TERN_KEY_BYTES]);

#endif
