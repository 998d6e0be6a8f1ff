/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The tokenizer's files of a publisher's folder: which of them are read, and in which order they have a say.
 */
#include "engine/hf.h"
#include "engine/hf_vocab.h"
#include "engine/mapping.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_BYTES (128 << 20) /* of one file; that of 262144 tokens with half a million merges has 33 MB */

typedef enum tern_status read_file(struct tern_hf_vocab *v, const void *bytes, size_t n,
                                   struct tern_err *err);

/* TERN_END when there is no such file. */
static enum tern_status read_one(struct tern_hf_vocab *v, const char *folder, const char *file,
                                 read_file *read, struct tern_err *err)
{
    char path[PATH_MAX];
    struct tern_mapping map;
    struct tern_err why;
    enum tern_status st;

    if (snprintf(path, sizeof path, "%s/%s", folder, file) >= (int)sizeof path)
        return TERN_FAIL(err, TERN_ERR_USAGE, "%.100s...: the path is too long", folder);
    st = tern_mapping_open(path, &map, &why);
    if (st && why.sys_errno == ENOENT)
        return TERN_END;
    if (st) {
        if (err)
            *err = why;
        return st;
    }
    v->name = map.path;
    if (map.size > MAX_BYTES)
        st = TERN_FAIL(err, TERN_ERR_LIMIT, "%s: %zu bytes, at most %d", map.path, map.size, MAX_BYTES);
    else
        st = read(v, map.bytes, map.size, err);
    if (tern_mapping_check(&map, &why)) { /* what was read may have been zeros */
        st = why.status;
        if (err)
            *err = why;
    }
    tern_mapping_close(&map);
    v->name = folder;
    return st;
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
        read_file *read;
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
