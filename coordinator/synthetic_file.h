/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Synthetic models as files, for `tern convert --synthetic` and `tern bench --synthetic`.
 *
 * Written beside their place and renamed: nobody sees half a file, and none is left behind by a failure or a
 * signal.
 */
#ifndef TERN_COORDINATOR_SYNTHETIC_FILE_H
#define TERN_COORDINATOR_SYNTHETIC_FILE_H

#include "engine/synthetic.h"
#include "kernels/cpu.h"

/* --synthetic: the sentence of a failure names the known shapes. */
enum tern_status synthetic_file_shape(const char *name, struct tern_synthetic *out,
                                      struct tern_err *err) TERN_MUST_CHECK;
/* --type, and the type of embedding and head under the option's name. */
enum tern_status synthetic_file_type(const char *name, uint32_t *out, struct tern_err *err) TERN_MUST_CHECK;
enum tern_status synthetic_file_embd(const char *option, const char *name, uint32_t *out,
                                     struct tern_err *err) TERN_MUST_CHECK;

struct synthetic_file_options {
    unsigned threads;
    enum tern_cpu_level cpu;
    bool force; /* overwrite */
    bool quiet; /* no progress */
};

/* Says how large the file will be before it is written, checks that the disk has room, writes it to path. */
enum tern_status synthetic_file_write(const struct tern_synthetic *s, const char *path,
                                      const struct synthetic_file_options *o,
                                      struct tern_err *err) TERN_MUST_CHECK;

/* A file of a name of its own in $TMPDIR or /var/tmp; path [cap] gets it and the caller unlinks it. */
enum tern_status synthetic_file_temporary(const struct tern_synthetic *s,
                                          const struct synthetic_file_options *o, char *path, size_t cap,
                                          struct tern_err *err) TERN_MUST_CHECK;

#endif
