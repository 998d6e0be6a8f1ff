/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The GGUF container (ggml's docs/gguf.md, versions 2 and 3): header, metadata and tensor directory over
 * untrusted bytes.
 *
 * Parsing checks every length, count and offset with arithmetic that cannot wrap: after success every string,
 * array and tensor lies inside the bytes, tensor names are unique, and every tensor's size agrees with its
 * type and shape.  Nothing is copied but the directory; strings and data are borrowed from the bytes and live
 * as long as they do.
 *
 * Thread: parsing one; a parsed file is immutable and may be read by any.
 */
#ifndef TERN_ENGINE_GGUF_H
#define TERN_ENGINE_GGUF_H

#include "engine/base/cursor.h"
#include "engine/base/status.h"
#include "engine/mapping.h"

#include <stdbool.h>
#include <stdint.h>

/* Value types of metadata. */
enum tern_gguf_type {
    TERN_GGUF_U8,
    TERN_GGUF_I8,
    TERN_GGUF_U16,
    TERN_GGUF_I16,
    TERN_GGUF_U32,
    TERN_GGUF_I32,
    TERN_GGUF_F32,
    TERN_GGUF_BOOL,
    TERN_GGUF_STRING,
    TERN_GGUF_ARRAY,
    TERN_GGUF_U64,
    TERN_GGUF_I64,
    TERN_GGUF_F64
};

struct tern_gguf_kv {
    struct tern_str key;
    uint32_t type;       /* enum tern_gguf_type */
    uint32_t elem_type;  /* of an array */
    uint64_t n;          /* elements of an array, 1 otherwise */
    const uint8_t *data; /* first byte of the value (of the first element) */
    size_t bytes;        /* all of it */
};

struct tern_tensor {
    struct tern_str name;
    uint32_t type;       /* ggml type id */
    uint32_t n_dims;     /* 1..4 */
    uint64_t ne[4];      /* ne[0] is contiguous (in features); unused dimensions are 1 */
    const uint8_t *data; /* first byte, inside the mapping */
    size_t bytes;
};

struct tern_gguf {
    struct tern_mapping map; /* map.bytes is NULL when parsed from memory */
    char *name;              /* what sentences call this file */
    const uint8_t *bytes;
    size_t size;
    uint32_t version; /* 2 or 3 */
    uint64_t alignment;
    size_t n_kv;
    struct tern_gguf_kv *kv; /* in file order */
    size_t n_tensors;
    struct tern_tensor *tensors; /* in file order */
    uint32_t *by_name;           /* tensor indexes sorted by name */
};

/* Maps and parses. */
enum tern_status tern_gguf_open(const char *path, struct tern_gguf **out,
                                struct tern_err *err) TERN_MUST_CHECK;

/* Parses borrowed bytes (tests, fuzzing), which begin at a multiple of 8. */
enum tern_status tern_gguf_parse(const char *name, const void *bytes, size_t size, struct tern_gguf **out,
                                 struct tern_err *err) TERN_MUST_CHECK;

void tern_gguf_close(struct tern_gguf **g);

/* NULL when absent. */
const struct tern_gguf_kv *tern_gguf_find(const struct tern_gguf *g, const char *key);
const struct tern_tensor *tern_gguf_tensor(const struct tern_gguf *g, const char *name);

/*
 * Typed reading.  TERN_END when the key is absent (nothing is filled in err); TERN_ERR_FORMAT with a sentence
 * when it has another kind of type.  Any integer type serves an integer key, any float (or integer) type a
 * float key.
 */
enum tern_status tern_gguf_u64(const struct tern_gguf *g, const char *key, uint64_t *out,
                               struct tern_err *err) TERN_MUST_CHECK;
enum tern_status tern_gguf_f64(const struct tern_gguf *g, const char *key, double *out,
                               struct tern_err *err) TERN_MUST_CHECK;
enum tern_status tern_gguf_bool(const struct tern_gguf *g, const char *key, bool *out,
                                struct tern_err *err) TERN_MUST_CHECK;
enum tern_status tern_gguf_string(const struct tern_gguf *g, const char *key, struct tern_str *out,
                                  struct tern_err *err) TERN_MUST_CHECK;

/* Walks an array of strings: init with the kv's data and bytes, then one call an element. */
bool tern_gguf_next_string(struct tern_cursor *c, struct tern_str *out);

/* Element i of an array of integers (any integer type) or floats; i < kv->n. */
int64_t tern_gguf_array_i64(const struct tern_gguf_kv *kv, uint64_t i);
double tern_gguf_array_f64(const struct tern_gguf_kv *kv, uint64_t i);

/* Bytes a tensor of this type and shape takes in a file; false for unknown types, shapes
 * that are no multiple of the block, and overflow. */
bool tern_gguf_tensor_bytes(uint32_t type, const uint64_t ne[4], size_t *bytes);

/* "I2_S", "F16", ...; "type 77" style names are not made: NULL when unknown. */
const char *tern_gguf_type_name(uint32_t type);

#endif
