/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `--dump-steps FILE`: a pipe around a pipe that writes down what goes through, before it is encrypted.
 *
 * The file is what a listener on the links must not be able to find in what it hears: the prompts as text
 * and as ids (int32), and the payload of every step and result, one after the other.  It holds what users
 * wrote: mode 0600, and for tests only.
 *
 * Thread: the scheduler's.
 */
#ifndef TERN_COORDINATOR_PIPE_DUMP_H
#define TERN_COORDINATOR_PIPE_DUMP_H

#include "coordinator/pipe.h"

#include <stddef.h>

/* Creates the file, or empties it. */
enum tern_status pipe_dump_create(const char *path, int *fd, struct tern_err *err) TERN_MUST_CHECK;
/* Everything or an error. */
enum tern_status pipe_dump_write(int fd, const void *bytes, size_t n, struct tern_err *err) TERN_MUST_CHECK;

/* *p becomes a pipe around the one it was, and owns it; fd is borrowed. */
enum tern_status pipe_dump_wrap(struct pipe **p, int fd, struct tern_err *err) TERN_MUST_CHECK;

#endif
