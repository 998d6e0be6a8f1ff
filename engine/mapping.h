/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A file mapped read-only whose disappearance is an error and not a crash.
 *
 * When a mapped file is truncated (or its disk fails) while in use, touching the lost pages raises SIGBUS.
 * After tern_mapping_guard_install() the handler puts zero pages there and marks the mapping damaged; whoever
 * reads from a mapping asks tern_mapping_check() after each unit of work and fails then.  A SIGBUS anywhere
 * else ends the program as it would have without us.
 */
#ifndef TERN_ENGINE_MAPPING_H
#define TERN_ENGINE_MAPPING_H

#include "engine/base/status.h"

#include <stddef.h>
#include <stdint.h>

struct tern_mapping {
    const uint8_t *bytes;
    size_t size;
    int fd;         /* open as long as the mapping, to see the file's size */
    int slot;       /* in the guard's table; -1 when the table is full (then only the size is checked) */
    char path[256]; /* for sentences; shortened when longer */
    /* identity of the file when it was opened, for caches of hashes */
    uint64_t dev, ino, mtime_ns, ctime_ns;
};

/* Installs the SIGBUS handler.  Once, in main, before threads.  Programs that do not call it die of SIGBUS as
 * usual. */
enum tern_status tern_mapping_guard_install(struct tern_err *err) TERN_MUST_CHECK;

/* Maps a regular file whole.  Refuses directories, devices, and empty files with a sentence. */
enum tern_status tern_mapping_open(const char *path, struct tern_mapping *out,
                                   struct tern_err *err) TERN_MUST_CHECK;
void tern_mapping_close(struct tern_mapping *m);

/* Fails with TERN_ERR_IO once any page of the mapping was found missing, the file has become shorter, or it
 * was written to since it was opened: hashes and weights taken from it would not be of one model. */
enum tern_status tern_mapping_check(const struct tern_mapping *m, struct tern_err *err) TERN_MUST_CHECK;

/* Tells the system that bytes [offset, offset + n) are not needed in memory any more (page-rounded inwards).
 * */
void tern_mapping_release(const struct tern_mapping *m, size_t offset, size_t n);

#endif
