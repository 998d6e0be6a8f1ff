/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The safetensors container: eight bytes with the length of a JSON header, the header with dtype, shape and
 * place of each array, then the data.  Format: https://github.com/huggingface/safetensors.
 *
 * After success every array lies inside the bytes, has the size its dtype and shape say, and shares no byte
 * with another.  It may begin at any byte: not every writer pads its header.
 */
#ifndef TERN_ENGINE_HF_SAFETENSORS_H
#define TERN_ENGINE_HF_SAFETENSORS_H

#include "engine/base/status.h"

#include <stddef.h>
#include <stdint.h>

#define TERN_HF_NO_TYPE UINT32_MAX

struct tern_hf_array {
    const char *name;  /* borrowed from the header, as is the next */
    const char *dtype; /* "BF16" */
    uint32_t type;     /* ggml type id of the dtype; TERN_HF_NO_TYPE when there is none */
    size_t elem_bytes;
    uint32_t n_dims;   /* 0..4 */
    uint64_t shape[4]; /* as written: the last one is contiguous; those beyond n_dims are 1; none is 0 */
    const uint8_t *data;
    size_t bytes;
    uint32_t map; /* for those who read several files; 0 */
};

struct tern_safetensors {
    void *header;                 /* the JSON that names point into */
    struct tern_hf_array *arrays; /* [n], by place in the file */
    size_t n;
    size_t header_bytes;
};

/* bytes: borrowed.  name: what sentences call the file. */
enum tern_status tern_safetensors_parse(const char *name, const void *bytes, size_t size,
                                        struct tern_safetensors *out, struct tern_err *err) TERN_MUST_CHECK;

/* Also of a zeroed struct. */
void tern_safetensors_free(struct tern_safetensors *s);

#endif
