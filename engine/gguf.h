/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A model in the terms of GGUF: metadata and a directory of tensors, over untrusted bytes.
 *
 * Parsing reads the GGUF container (ggml's docs/gguf.md, versions 2 and 3).  The parts of a split file and
 * Hugging Face folders end up in the same struct (model_file.h): metadata of the first part or made from
 * config.json, tensors of all files under the names GGUF has for them.
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

/* How the bytes of a tensor become weights, where its type alone does not say; zeros for tensors of GGUF
 * files. */
struct tern_tensor_view {
    bool absmean;     /* master weights: the ternary matrix is still to be made of them */
    bool plus_one;    /* of a norm: the weight is one more than what is stored */
    float scale;      /* of TERN_TYPE_HF_PACKED: what a weight of 1 stands for */
    uint32_t n_heads; /* not 0: rows of each of so many heads are to be interleaved, row 2j from row j and row
                       * 2j + 1 from row j + d/2 of the d rows of a head (formats of llama in GGUF) */
};

struct tern_tensor {
    struct tern_str name;
    uint32_t type;       /* ggml type id, or TERN_TYPE_HF_PACKED */
    uint32_t n_dims;     /* 1..4 */
    uint64_t ne[4];      /* ne[0] is contiguous (in features); unused dimensions are 1 */
    const uint8_t *data; /* first byte, inside the mapping; of folders at any address */
    size_t bytes;
    uint32_t map; /* index into maps; meaningless when there are none */
    struct tern_tensor_view view;
};

/* What a file does not say of itself, and its user may (model_file.h). */
struct tern_file_options;

/* Bytes that a model keeps as long as it lives. */
struct tern_gguf_kept {
    struct tern_gguf_kept *next;
    uint8_t bytes[];
};

struct tern_gguf {
    struct tern_mapping *maps; /* [n_maps] files under it; none when parsed from memory */
    size_t n_maps;
    char *name;           /* what sentences call this model */
    const uint8_t *bytes; /* of the container (the first part's, or the metadata made for a folder) */
    size_t size;
    void *owned;                       /* bytes that are ours, or NULL */
    struct tern_gguf_kept *kept;       /* values of overrides */
    struct tern_file_options *options; /* owned; NULL: all defaults */
    uint32_t version;                  /* 2 or 3 */
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

/* Fails when a file under the model was truncated or written to since it was opened (tern_mapping_check). */
enum tern_status tern_gguf_check(const struct tern_gguf *g, struct tern_err *err) TERN_MUST_CHECK;

/* Tells the system that a tensor's bytes, or those of all files, are not needed in memory any more. */
void tern_gguf_release(const struct tern_gguf *g, const struct tern_tensor *t);
/* Bytes [from, to) of a tensor. */
void tern_gguf_release_part(const struct tern_gguf *g, const struct tern_tensor *t, size_t from, size_t to);
void tern_gguf_release_all(const struct tern_gguf *g);

/* Bytes of all files under the model. */
uint64_t tern_gguf_file_bytes(const struct tern_gguf *g);

/*
 * For those who put a model together of several files.  Takes tensors [n] (malloc'ed, names borrowed
 * from what lives as long as g) and maps [n_maps] (malloc'ed, open), in place of those of g, whose old
 * tensors must not be in use.  Twin names are refused.  On failure everything stays the caller's.
 */
enum tern_status tern_gguf_adopt(struct tern_gguf *g, struct tern_tensor *tensors, size_t n,
                                 struct tern_mapping *maps, size_t n_maps,
                                 struct tern_err *err) TERN_MUST_CHECK;

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

/* The id of TL2 is also that of MXFP4, which no ternary model has.  Shape, architecture and file type of g
 * tell them apart; a part of a split file without metadata is believed to hold TL2. */
bool tern_gguf_is_mxfp4(const struct tern_gguf *g, const struct tern_tensor *t);

/* "I2_S", "F16", ...; "type 77" style names are not made: NULL when unknown. */
const char *tern_gguf_type_name(uint32_t type);

#endif
