/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A folder becomes a model in GGUF's terms (hf.h): its metadata is written as a GGUF without tensors into
 * memory and read back; its tensors lie in the mapped files.
 */
#include "engine/hf.h"

#include "engine/base/mem.h"
#include "engine/hf_config.h"
#include "engine/hf_json.h"
#include "engine/hf_metadata.h"
#include "engine/hf_path.h"
#include "engine/hf_rope.h"
#include "engine/hf_shards.h"
#include "engine/hf_tensors.h"
#include "kernels/pack.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ROPE_FREQS "rope_freqs.weight"
#define IN_MEMORY  UINT32_MAX /* the map of a tensor that lies in none */

/* A folder being opened. */
struct folder {
    const char *path;
    struct tern_hf_config config;
    struct tern_hf_shards shards;
    struct tern_hf_tensors tensors;
    uint32_t n_vocab;
    struct tern_err *err;
};

/* A GGUF being written to memory. */
struct writing {
    FILE *f;
    char *bytes;
    size_t n;
    size_t gguf_bytes; /* of n, once it is written */
    struct tern_gguf_writer *w;
};

static enum tern_status begin_writing(const struct folder *f, struct writing *x)
{
    enum tern_status st;

    memset(x, 0, sizeof *x);
    x->f = open_memstream(&x->bytes, &x->n);
    if (!x->f)
        return TERN_FAIL_SYS(f->err, TERN_ERR_MEMORY, errno, "%s: no memory for its metadata", f->path);
    st = tern_gguf_writer_new(x->f, f->path, 32, &x->w, f->err);
    if (st) {
        fclose(x->f);
        free(x->bytes);
    }
    return st;
}

/* Without finishing. */
static void drop_writing(struct writing *x)
{
    tern_gguf_writer_free(&x->w);
    fclose(x->f);
    free(x->bytes);
}

/* Ends the GGUF; what is written to f from now on lies behind it. */
static enum tern_status end_writing(const struct folder *f, struct writing *x)
{
    enum tern_status st;

    tern_gguf_begin(x->w);
    st = tern_gguf_finish(&x->w, f->err);
    x->gguf_bytes = x->n;
    return st;
}

/* Takes the bytes, in any case. */
static enum tern_status parse(const struct folder *f, struct writing *x, struct tern_gguf **out)
{
    struct tern_gguf *g = NULL;
    enum tern_status st = TERN_OK;

    if (fclose(x->f) != 0 || x->gguf_bytes == 0 || x->n < x->gguf_bytes)
        st = TERN_FAIL(f->err, TERN_ERR_MEMORY, "%s: no memory for its metadata", f->path);
    if (!st)
        st = tern_gguf_parse(f->path, x->bytes, x->gguf_bytes, &g, f->err);
    if (st) {
        free(x->bytes);
        return st;
    }
    g->owned = x->bytes;
    *out = g;
    return TERN_OK;
}

/* -- metadata ------------------------------------------------------------------------------------------- */

/* The keys of the tokenizer's files; TERN_END when there are none. */
static enum tern_status put_tokenizer(const struct folder *f, struct tern_gguf_writer *w)
{
    return tern_hf_put_tokenizer(f->path, f->n_vocab, w, f->err);
}

/* general.file_type of GGUF. */
static uint32_t file_type(const struct folder *f)
{
    switch (f->tensors.matrix_type) {
    case TERN_TYPE_HF_PACKED: return 40;
    case TERN_BF16: return 32;
    case TERN_F16: return 1;
    default: return 0;
    }
}

static enum tern_status put_metadata(const struct folder *f, struct writing *x)
{
    bool embeds = !f->config.has_head || f->tensors.has_input_norms;
    char name[256];
    enum tern_status st;

    tern_hf_model_name(f->path, f->config.name_or_path, name, sizeof name);
    tern_hf_put_config(&f->config, name, f->n_vocab, file_type(f), x->w);
    st = tern_hf_put_pooling(f->path, &f->config, embeds, x->w, f->err);
    if (!st)
        st = put_tokenizer(f, x->w);
    return st && st != TERN_END ? st : end_writing(f, x); /* without a tokenizer it still runs on ids */
}

/* -- tensors --------------------------------------------------------------------------------------------- */

/* Adds the names of tensors and frequency factors of RoPE behind the metadata; *factors is where. */
static enum tern_status append_tensors(const struct folder *f, struct writing *x, size_t *factors)
{
    const struct tern_hf_tensors *t = &f->tensors;
    float out[TERN_MAX_HEAD_DIM / 2];
    size_t at = x->gguf_bytes + t->names_bytes + strlen(ROPE_FREQS);
    bool ok = fwrite(t->names, 1, t->names_bytes, x->f) == t->names_bytes && fputs(ROPE_FREQS, x->f) >= 0;

    for (*factors = at; *factors % 32; (*factors)++)
        ok &= fputc(0, x->f) == 0;
    if (f->config.rope.factor > 0) {
        tern_hf_rope_factors(&f->config, out);
        ok &= fwrite(out, sizeof *out, f->config.head_dim / 2, x->f) == f->config.head_dim / 2;
    }
    return ok ? TERN_OK : TERN_FAIL(f->err, TERN_ERR_MEMORY, "%s: no memory for its metadata", f->path);
}

/* Gives tensors their names, and adds the factors. */
static void place_tensors(struct folder *f, const struct writing *x, size_t factors)
{
    struct tern_hf_tensors *t = &f->tensors;
    const char *name = x->bytes + x->gguf_bytes;

    for (size_t i = 0; i < t->n; i++) {
        t->tensors[i].name.ptr = name;
        name += t->tensors[i].name.len;
    }
    if (f->config.rope.factor > 0)
        t->tensors[t->n++] = (struct tern_tensor){ .name = { name, strlen(ROPE_FREQS) },
                                                   .type = TERN_F32,
                                                   .n_dims = 1,
                                                   .ne = { f->config.head_dim / 2, 1, 1, 1 },
                                                   .data = (const uint8_t *)x->bytes + factors,
                                                   .bytes = f->config.head_dim / 2 * sizeof(float),
                                                   .map = IN_MEMORY };
}

static enum tern_status assemble(struct folder *f, struct tern_gguf **out)
{
    struct writing x;
    struct tern_gguf *g = NULL;
    size_t factors = 0;
    enum tern_status st = begin_writing(f, &x);

    if (st)
        return st;
    st = put_metadata(f, &x);
    if (!st)
        st = append_tensors(f, &x, &factors);
    if (st) {
        drop_writing(&x);
        return st;
    }
    st = parse(f, &x, &g);
    if (st)
        return st;
    place_tensors(f, &x, factors);
    st = tern_gguf_adopt(g, f->tensors.tensors, f->tensors.n, f->shards.maps, f->shards.n_maps, f->err);
    if (st) {
        tern_gguf_close(&g);
        return st;
    }
    f->tensors.tensors = NULL;
    tern_hf_shards_give_maps(&f->shards);
    *out = g;
    return TERN_OK;
}

/* -- exported -------------------------------------------------------------------------------------------- */

/* Rows of the embedding; what does not fit, the reader of the architecture refuses. */
static enum tern_status count_vocab(struct folder *f)
{
    const char *const names[] = { "model.embed_tokens.weight", "embed_tokens.weight" };

    for (size_t i = 0; i < 2; i++) {
        const struct tern_hf_array *a = tern_hf_shards_find(&f->shards, names[i]);

        if (!a)
            continue;
        if (a->n_dims != 2 || a->shape[0] > TERN_MAX_VOCAB)
            return TERN_FAIL(f->err, TERN_ERR_LIMIT, "%s: tensor '%s' is no matrix of at most %d rows",
                             f->path, a->name, TERN_MAX_VOCAB);
        f->n_vocab = (uint32_t)a->shape[0];
        return TERN_OK;
    }
    return TERN_FAIL(f->err, TERN_ERR_FORMAT, "%s: tensor '%s' is missing; get all files of the folder",
                     f->path, names[0]);
}

enum tern_status tern_hf_open(const char *path, struct tern_gguf **out, struct tern_err *err)
{
    struct tern_err unused;
    struct folder f = { .path = path, .err = err ? err : &unused };
    enum tern_status st = tern_hf_config_read(path, &f.config, f.err);

    if (!st)
        st = tern_hf_shards_open(path, &f.shards, f.err);
    if (!st)
        st = count_vocab(&f);
    if (!st)
        st = tern_hf_tensors_make(path, &f.config, &f.shards, &f.tensors, f.err);
    if (!st)
        st = assemble(&f, out);
    tern_hf_tensors_free(&f.tensors);
    tern_hf_shards_close(&f.shards);
    return st;
}
