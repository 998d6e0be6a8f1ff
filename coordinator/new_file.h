/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Large files that take long to write: made beside their place and renamed when whole.  Nobody sees half a
 * file, and none is left behind by a failure or a signal that the program catches.
 */
#ifndef TERN_COORDINATOR_NEW_FILE_H
#define TERN_COORDINATOR_NEW_FILE_H

#include "engine/base/status.h"

#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

struct new_file {
    FILE *f;             /* open for writing, at its beginning */
    char temp[PATH_MAX]; /* its name so far */
};

/* Whether `path` may be written at all: not there, or a regular file and `force`. */
enum tern_status new_file_check(const char *path, bool force, struct tern_err *err) TERN_MUST_CHECK;

/* Opens a file of `bytes` to come under a name like `path`, or of that very pattern when it ends in XXXXXX.
 * Fails when the disk has no room for it; says on stderr what is going to be written unless quiet. */
enum tern_status new_file_open(struct new_file *n, const char *path, uint64_t bytes, bool quiet,
                               struct tern_err *err) TERN_MUST_CHECK;

/* Closes; what is in n->temp stays there. */
enum tern_status new_file_close(struct new_file *n, struct tern_err *err) TERN_MUST_CHECK;

/* All bytes on the disk, then the name. */
enum tern_status new_file_rename(struct new_file *n, const char *path, struct tern_err *err) TERN_MUST_CHECK;

/* Instead of one of these: removes it. */
void new_file_remove(struct new_file *n);

#endif
