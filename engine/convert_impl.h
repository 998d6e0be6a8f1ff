/* SPDX-License-Identifier: Apache-2.0 */
/* What the parts of a conversion share: convert.c (plan, metadata), convert_write.c, convert_verify.c. */
#ifndef TERN_ENGINE_CONVERT_IMPL_H
#define TERN_ENGINE_CONVERT_IMPL_H

#include "engine/arch.h"
#include "engine/convert.h"
#include "engine/gguf_write.h"
#include "engine/ternary_source.h"

enum convert_part {
    CONVERT_RAW,    /* bytes as they are */
    CONVERT_VECTOR, /* floats to F32 */
    CONVERT_TABLE,  /* rows of one type of enum tern_dtype to another */
    CONVERT_MATRIX  /* ternary */
};

struct convert_tensor {
    const struct tern_tensor *t;
    char name[256];
    enum convert_part part;
    uint32_t type;     /* that is written */
    size_t m, k;       /* rows, columns; RAW and VECTOR: one row */
    size_t piece_rows; /* of a piece; RAW: columns are bytes and piece_rows counts these */
    size_t n_pieces;
    uint64_t *hashes; /* [n_pieces] of the ternary values of a matrix, of the bytes written of all else */
    float scale;      /* of a matrix; 0 when it has no weights */
};

struct tern_conversion {
    const struct tern_gguf *g;
    struct tern_convert_options o;
    struct tern_arch arch;
    size_t n;
    struct convert_tensor *tensors; /* [n] in file order */
    char pre[64];                   /* to be written, or empty */
    bool replace_pre;               /* in place of the file's */
    const char *chat_template;      /* the same; NULL: the file's, if it has one */
    uint64_t bytes;                 /* of the file */
    uint64_t hashes_at;             /* offset of the hashes in the file */
    uint64_t scales_at;             /* and of exact scales; 0: the type does not round them */
};

/* One key of the source does not go into the file as it is. */
bool tern_convert_drops(const struct tern_conversion *c, struct tern_str key);

/* A writer with metadata and directory of the new file. */
enum tern_status tern_convert_writer(struct tern_conversion *c, FILE *f, const char *name,
                                     struct tern_gguf_writer **out, struct tern_err *err) TERN_MUST_CHECK;

/* Rows of piece i. */
static inline size_t tern_convert_piece_rows(const struct convert_tensor *ct, size_t i)
{
    size_t all = ct->part == CONVERT_RAW ? ct->t->bytes : ct->m, left = all - i * ct->piece_rows;

    return left < ct->piece_rows ? left : ct->piece_rows;
}

/* Bytes of a row in the file; of an I2_S row a quarter of its columns, which may not be whole. */
size_t tern_convert_row_bytes(const struct convert_tensor *ct);

/* Tells two runs of bytes apart that differ by mistake: fast, no defence against malice. */
uint64_t tern_convert_hash(const void *bytes, size_t n);

/* What a weight of 1 reads as in the file that is written, exact scales (exact_scale.h) included. */
float tern_convert_scale(const struct convert_tensor *ct);

#endif
