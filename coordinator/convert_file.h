/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `tern convert IN -o OUT`: a model from one file or folder to another, compared afterwards, renamed when
 * whole.
 */
#ifndef TERN_COORDINATOR_CONVERT_FILE_H
#define TERN_COORDINATOR_CONVERT_FILE_H

#include "engine/convert.h"
#include "engine/model_file.h"
#include "kernels/cpu.h"

struct convert_file_options {
    const char *input, *output;
    const char *layers; /* "A-B" of a slice, or NULL */
    struct tern_convert_options to;
    bool type_given; /* else I2_S; of a slice of a file what it has, so that it fits that file */
    struct tern_file_options file;
    unsigned threads;
    enum tern_cpu_level cpu;
    bool force; /* overwrite */
    bool quiet; /* no progress */
};

/* --type: of ternary matrices; "keep" is TERN_CONVERT_KEEP. */
enum tern_status convert_file_type(const char *name, uint32_t *out, struct tern_err *err) TERN_MUST_CHECK;

enum tern_status convert_file(const struct convert_file_options *o, struct tern_err *err) TERN_MUST_CHECK;

#endif
