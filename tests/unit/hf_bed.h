/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A Hugging Face folder of a test: a temporary directory, files of text in it, and safetensors files made
 * array by array.
 */
#ifndef TERN_TESTS_UNIT_HF_BED_H
#define TERN_TESTS_UNIT_HF_BED_H

#include "unit/unit.h"

#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct hf_bed {
    char path[64];
    char header[65536]; /* of the safetensors file under construction */
    size_t header_n;
    uint8_t data[262144];
    size_t n;
    uint64_t seed;
};

static inline struct hf_bed *hf_bed_new(void)
{
    struct hf_bed *b = calloc(1, sizeof *b);

    assert_non_null(b);
    strcpy(b->path, "/tmp/tern_hf_XXXXXX");
    assert_non_null(mkdtemp(b->path));
    b->seed = 42;
    return b;
}

static inline void hf_bed_bytes(struct hf_bed *b, const char *file, const void *bytes, size_t n)
{
    char path[512];
    FILE *f;

    snprintf(path, sizeof path, "%s/%s", b->path, file);
    (void)remove(path); /* some file systems write out at once what replaces a file's bytes */
    f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(bytes, 1, n, f), n);
    fclose(f);
}

static inline void hf_bed_text(struct hf_bed *b, const char *file, const char *text)
{
    hf_bed_bytes(b, file, text, strlen(text));
}

static inline void hf_bed_unlink(struct hf_bed *b, const char *file)
{
    char path[512];

    snprintf(path, sizeof path, "%s/%s", b->path, file);
    assert_int_equal(remove(path), 0);
}

/* One more array; bytes NULL: random ones (as BF16 they are small numbers).  rows 0: a vector. */
static inline void hf_bed_add(struct hf_bed *b, const char *name, const char *dtype, size_t elem, size_t rows,
                              size_t cols, const void *bytes)
{
    size_t n = elem * cols * (rows ? rows : 1);
    char shape[64];

    if (rows)
        snprintf(shape, sizeof shape, "[%zu,%zu]", rows, cols);
    else
        snprintf(shape, sizeof shape, "[%zu]", cols);
    b->header_n += (size_t)snprintf(b->header + b->header_n, sizeof b->header - b->header_n,
                                    "%s\"%s\":{\"dtype\":\"%s\",\"shape\":%s,\"data_offsets\":[%zu,%zu]}",
                                    b->header_n ? "," : "{", name, dtype, shape, b->n, b->n + n);
    assert_true(b->n + n <= sizeof b->data && b->header_n < sizeof b->header - 16);
    if (bytes)
        memcpy(b->data + b->n, bytes, n);
    for (size_t i = 0; !bytes && i < n; i++)
        b->data[b->n + i] = (uint8_t)(elem == 2 && i % 2 ? 0x3c + (unit_random(&b->seed) & 0x81)
                                                         : unit_random(&b->seed) >> 20);
    b->n += n;
}

/* Writes what was added as a file, its header padded as the library does it. */
static inline void hf_bed_write(struct hf_bed *b, const char *file)
{
    size_t head;
    uint8_t *all;

    b->header_n += (size_t)sprintf(b->header + b->header_n, "%s}", b->header_n ? "" : "{");
    while (b->header_n % 8)
        b->header[b->header_n++] = ' ';
    head = b->header_n;
    all = malloc(8 + head + b->n);
    assert_non_null(all);
    for (int i = 0; i < 8; i++)
        all[i] = (uint8_t)((uint64_t)head >> 8 * i);
    memcpy(all + 8, b->header, head);
    memcpy(all + 8 + head, b->data, b->n);
    hf_bed_bytes(b, file, all, 8 + head + b->n);
    free(all);
    b->header_n = b->n = 0;
}

static inline int hf_bed_remove(const char *path, const struct stat *sb, int type, struct FTW *where)
{
    (void)sb;
    (void)type;
    (void)where;
    return remove(path);
}

static inline void hf_bed_free(struct hf_bed *b)
{
    (void)nftw(b->path, hf_bed_remove, 8, FTW_DEPTH | FTW_PHYS);
    free(b);
}

#endif
