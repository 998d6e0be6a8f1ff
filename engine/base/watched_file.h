/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A small text file that says who may do what, and that may change while a program runs: it is read whole, it
 * must belong to us or to root and not be open to others, and a version that was read is known again.
 *
 * Thread: one at a time.
 */
#ifndef TERN_ENGINE_BASE_WATCHED_FILE_H
#define TERN_ENGINE_BASE_WATCHED_FILE_H

#include "engine/base/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What is the same for all files of a kind; words for sentences. */
struct tern_watched_kind {
    const char *what;           /* "the allow-list" */
    const char *hint;           /* behind a sentence that it cannot be opened: "; a line is ...", or "" */
    const char *open;           /* of one with wrong permissions: "can be written by others" */
    const char *remedy;         /* "chmod go-w" */
    unsigned forbidden;         /* permission bits */
    unsigned forbidden_of_root; /* the same of root's file when we are not root */
    size_t max_bytes;
};

/* All zeros at first. */
struct tern_watched_file {
    uint64_t version[5]; /* that was looked at last: device, inode, size, mtime and ctime in ns */
    bool refused;        /* it was of no use */
    uint64_t refused_ctime;
};

enum tern_watched_news { TERN_WATCHED_SAME, TERN_WATCHED_CHANGED, TERN_WATCHED_GONE };

/* Is the file still the version that was read last?  When in doubt it has changed. */
enum tern_watched_news tern_watched_look(struct tern_watched_file *w, const char *path);

/* Reads it: *text has *len bytes and is the caller's to free. */
enum tern_status tern_watched_read(struct tern_watched_file *w, const struct tern_watched_kind *kind,
                                   const char *path, char **text, size_t *len,
                                   struct tern_err *err) TERN_MUST_CHECK;

/* The version last looked at, or that there is none, is of no use: true when that was not said before. */
bool tern_watched_refuse(struct tern_watched_file *w);
/* It is good. */
void tern_watched_accept(struct tern_watched_file *w);

#endif
