/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What `tern inspect` knows of a file, and the two ways of printing it.
 *
 * Whatever can be said is said: a file whose architecture or tokenizer Tern cannot use still shows its
 * metadata and tensors, and each part that failed carries its sentence.
 */
#ifndef TERN_COORDINATOR_INSPECT_H
#define TERN_COORDINATOR_INSPECT_H

#include "engine/arch.h"
#include "engine/gguf.h"
#include "engine/kv.h"
#include "engine/model.h"
#include "engine/tokenizer.h"
#include "engine/verify.h"

#include <jansson.h>
#include <stdbool.h>

/* A worker of layers [first, last), or the coordinator: every part in bytes. */
struct inspect_memory {
    struct tern_model_need need;
    size_t tiles_bytes[TERN_N_TILE_LAYOUTS]; /* need.tiles_bytes, were the layout another */
    size_t kv_bytes[TERN_N_KV_TYPES];        /* all pages of the context */
    size_t statistical_bytes;                /* need.head_bytes with --head statistical; coordinator */
    size_t rows_bytes;                       /* rows and logits of a coordinator */
    size_t total_bytes;
};

struct inspect {
    const char *path;
    const struct tern_gguf *g;
    struct tern_arch arch;
    struct tern_tokenizer *tokenizer; /* owned by the command */
    enum tern_status arch_status, tokenizer_status, memory_status;
    struct tern_err arch_err, tokenizer_err, memory_err;
    bool has_tokenizer;               /* the file lists tokens at all */
    bool has_worker, has_coordinator; /* memory was predicted */
    uint32_t first, last, ctx, threads, rows;
    enum tern_tile_layout layout; /* that memory was predicted for */
    enum tern_kv_type kv;         /* and this */
    struct inspect_memory worker, coordinator;
    bool has_hash;
    uint8_t hash[TERN_HASH_BYTES];
    bool list_tensors;
    struct tern_verify *verify; /* owned by the command; NULL: not asked for */
};

/* Tensors by type, in order of first appearance. */
struct inspect_type {
    uint32_t type;
    size_t n;
    uint64_t bytes;
};
size_t inspect_types(const struct tern_gguf *g, struct inspect_type *out, size_t cap);

/* "i2_s"-like name of a metadata type: "u32", "string", ... */
const char *inspect_kind(uint32_t type);

/* inspect_verify.c */
void inspect_print_verify(const struct tern_verify *v);
json_t *inspect_json_verify(const struct tern_verify *v);
size_t inspect_verify_weights(const struct tern_verify *v); /* of all matrices */

void inspect_print_text(const struct inspect *in);
enum tern_status inspect_print_json(const struct inspect *in, struct tern_err *err) TERN_MUST_CHECK;

#endif
