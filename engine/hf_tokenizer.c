/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The tokenizer's files of a publisher's folder: which of them are read, and in which order they have a say.
 */
#include "engine/hf.h"

#include "engine/base/limits.h"
#include "engine/hf_file.h"
#include "engine/hf_vocab.h"

#include <stdlib.h>
#include <string.h>

typedef enum tern_status read_bytes(struct tern_hf_vocab *v, const void *bytes, size_t n,
                                    struct tern_err *err);

struct reading {
    struct tern_hf_vocab *v;
    read_bytes *read;
};

static enum tern_status read_named(void *user, const char *name, const void *bytes, size_t n,
                                   struct tern_err *err)
{
    struct reading *r = user;
    const char *folder = r->v->name;
    enum tern_status st;

    r->v->name = name;
    st = r->read(r->v, bytes, n, err);
    r->v->name = folder;
    return st;
}

/* TERN_END when there is no such file. */
static enum tern_status read_one(struct tern_hf_vocab *v, const char *folder, const char *file,
                                 read_bytes *read, struct tern_err *err)
{
    struct reading r = { v, read };

    return tern_hf_file_read(folder, file, TERN_MAX_HF_TOKENIZER, read_named, &r, err);
}

static enum tern_status keep_template(struct tern_hf_vocab *v, const void *bytes, size_t n,
                                      struct tern_err *err)
{
    if (n > 1 << 20 || memchr(bytes, '\0', n))
        return TERN_FAIL(err, TERN_ERR_FORMAT, "%s: not a chat template", v->name);
    free(v->chat_template);
    v->chat_template = strndup(bytes, n);
    return v->chat_template ? TERN_OK : TERN_FAIL(err, TERN_ERR_MEMORY, "no memory for a chat template");
}

static enum tern_status read_all(struct tern_hf_vocab *v, const char *folder, struct tern_err *err)
{
    /* All of them may be missing.  Of ends and templates the first has the say, of added tokens the last. */
    static const struct {
        const char *file;
        read_bytes *read;
    } more[] = { { "chat_template.jinja", keep_template },
                 { "tokenizer_config.json", tern_hf_vocab_config },
                 { "generation_config.json", tern_hf_vocab_ids },
                 { "config.json", tern_hf_vocab_ids } };
    enum tern_status st = read_one(v, folder, "tokenizer.json", tern_hf_vocab_json, err);

    if (st == TERN_END) {
        st = read_one(v, folder, "tokenizer.model", tern_hf_vocab_model, err);
        if (st == TERN_OK) {
            st = read_one(v, folder, "added_tokens.json", tern_hf_vocab_added, err);
            st = st == TERN_END ? TERN_OK : st;
        }
    }
    for (size_t i = 0; i < sizeof more / sizeof more[0] && st == TERN_OK; i++) {
        st = read_one(v, folder, more[i].file, more[i].read, err);
        st = st == TERN_END ? TERN_OK : st;
    }
    return st;
}

enum tern_status tern_hf_put_tokenizer(const char *folder, uint32_t n_vocab, struct tern_gguf_writer *w,
                                       struct tern_err *err)
{
    struct tern_hf_vocab v;
    enum tern_status st = tern_hf_vocab_init(&v, n_vocab, err);

    v.name = folder;
    if (st == TERN_OK)
        st = read_all(&v, folder, err);
    if (st == TERN_OK)
        st = tern_hf_vocab_put(&v, w, err);
    tern_hf_vocab_free(&v);
    return st;
}
