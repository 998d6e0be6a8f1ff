/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The worker's own copy of the model file, or of a slice of it.
 */
#ifndef TERN_WORKER_WORKER_FILE_H
#define TERN_WORKER_WORKER_FILE_H

#include "engine/arch.h"
#include "engine/model_file.h"

#include <stdint.h>

struct worker_file {
    struct tern_gguf *gguf; /* owned */
    struct tern_arch arch;
    uint8_t arch_hash[TERN_HASH_BYTES];
    uint32_t first, last; /* layers present: [first, last), without holes */
};

/* o may be NULL. */
enum tern_status worker_file_open(const char *path, const struct tern_file_options *o,
                                  struct worker_file *out, struct tern_err *err) TERN_MUST_CHECK;
void worker_file_close(struct worker_file *f);

/* Tensors of layers [first, last). */
uint32_t worker_file_count(const struct worker_file *f, uint32_t first, uint32_t last);

#endif
