/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Models in memory for unit tests: written by the lab, parsed from a heap block of their exact size.
 */
#ifndef TERN_TESTS_UNIT_LAB_FILE_H
#define TERN_TESTS_UNIT_LAB_FILE_H

#include "lab/lab.h"
#include "unit/unit.h"

#include <stdlib.h>
#include <string.h>

struct lab_file {
    uint8_t *bytes;
    size_t n;
    struct tern_gguf *g;
};

/* Parses what a writer produced into f: open_memstream keeps a byte more than the file has, so it is copied.
 * */
static inline void lab_file_take(struct lab_file *f, char *written, size_t n)
{
    f->bytes = malloc(n);
    f->n = n;
    memcpy(f->bytes, written, n);
    free(written);
    assert_ok(tern_gguf_parse("lab.gguf", f->bytes, n, &f->g, &unit_err));
}

static inline struct lab_file lab_file_new(const struct tern_synthetic *shape)
{
    struct lab_file f;
    char *written;
    size_t n;
    FILE *stream = open_memstream(&written, &n);

    lab_write_synthetic(shape, stream);
    fclose(stream);
    lab_file_take(&f, written, n);
    return f;
}

static inline void lab_file_free(struct lab_file *f)
{
    tern_gguf_close(&f->g);
    free(f->bytes);
}

/* The bytes of a tensor, to change them. */
static inline uint8_t *lab_file_data(struct lab_file *f, const char *name)
{
    const struct tern_tensor *t = tern_gguf_tensor(f->g, name);

    assert_non_null(t);
    return f->bytes + (t->data - f->g->bytes);
}

#endif
