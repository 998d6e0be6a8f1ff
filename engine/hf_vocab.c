/* SPDX-License-Identifier: Apache-2.0 */
/* A publisher's tokenizer on its way to tokenizer.* keys: see hf_vocab.h. */
#include "engine/hf_vocab.h"

#include "engine/base/limits.h"
#include "engine/base/log.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Nothing that merges, so these scores only mark them, as other converters do. */
#define SCORE_SPECIAL (-1000.0f)
#define SCORE_PADDING (-10000.0f)

enum tern_status tern_hf_vocab_init(struct tern_hf_vocab *v, uint32_t n_room, struct tern_err *err)
{
    *v = (struct tern_hf_vocab){ .n_room = n_room,
                                 .bos = -1,
                                 .eos = -1,
                                 .eot = -1,
                                 .unknown = -1,
                                 .pad = -1,
                                 .add_bos = -1,
                                 .add_eos = -1,
                                 .add_space = -1,
                                 .pre = "unknown" };
    if (n_room == 0 || n_room > TERN_MAX_VOCAB)
        return TERN_FAIL(err, TERN_ERR_LIMIT, "the model has room for %u tokens; 1 to %d are possible",
                         n_room, TERN_MAX_VOCAB);
    v->texts = calloc(n_room, sizeof *v->texts);
    v->types = calloc(n_room, sizeof *v->types);
    v->scores = calloc(n_room, sizeof *v->scores);
    if (!v->texts || !v->types || !v->scores)
        return TERN_FAIL(err, TERN_ERR_MEMORY, "no memory for %u tokens", n_room);
    return TERN_OK;
}

void tern_hf_vocab_free(struct tern_hf_vocab *v)
{
    for (uint32_t i = 0; v->texts && i < v->n; i++)
        free(v->texts[i]);
    for (size_t i = 0; i < v->n_merges; i++)
        free(v->merges[i]);
    free(v->texts);
    free(v->types);
    free(v->scores);
    free(v->merges);
    free(v->chat_template);
    memset(v, 0, sizeof *v);
}

enum tern_status tern_hf_vocab_set(struct tern_hf_vocab *v, uint64_t id, const char *text, size_t len,
                                   enum tern_token_type type, float score, bool again, struct tern_err *err)
{
    char *copy;

    if (id >= v->n_room)
        return TERN_FAIL(err, TERN_ERR_FORMAT,
                         "%s: token %llu ('%.*s') is beyond the %u tokens the model has room for", v->name,
                         (unsigned long long)id, len < 60 ? (int)len : 60, text, v->n_room);
    if (len > TERN_MAX_TOKEN_BYTES)
        return TERN_FAIL(err, TERN_ERR_LIMIT, "%s: token %llu is %zu bytes long, at most %d", v->name,
                         (unsigned long long)id, len, TERN_MAX_TOKEN_BYTES);
    if (memchr(text, '\0', len))
        return TERN_FAIL(err, TERN_ERR_FORMAT, "%s: the text of token %llu has a zero byte in it", v->name,
                         (unsigned long long)id);
    if (v->texts[id] && !again)
        return TERN_FAIL(err, TERN_ERR_FORMAT, "%s: there are two tokens %llu: '%.60s' and '%.*s'", v->name,
                         (unsigned long long)id, v->texts[id], len < 60 ? (int)len : 60, text);
    copy = strndup(text, len);
    if (!copy)
        return TERN_FAIL(err, TERN_ERR_MEMORY, "no memory for token %llu", (unsigned long long)id);
    free(v->texts[id]);
    v->texts[id] = copy;
    v->types[id] = (int32_t)type;
    v->scores[id] = score;
    if (id >= v->n)
        v->n = (uint32_t)id + 1;
    return TERN_OK;
}

enum tern_status tern_hf_vocab_add(struct tern_hf_vocab *v, uint64_t id, const char *text, bool special,
                                   struct tern_err *err)
{
    char spaced[TERN_MAX_TOKEN_BYTES];
    size_t len = strlen(text);
    bool unknown = special && id < v->n_room && v->types[id] == TERN_TOKEN_UNKNOWN;

    if (id >= v->n_room) {
        if (!v->skipped)
            tern_log(TERN_LOG_WARN, "tokenizer",
                     "%s adds token %llu ('%.60s') to a model that has room for %u: left out", v->name,
                     (unsigned long long)id, text, v->n_room);
        v->skipped = true;
        return TERN_OK;
    }
    /* User-defined tokens are looked for in the text as it is, which has spaces. */
    if (v->spm && !special && len <= sizeof spaced && strstr(text, "\xe2\x96\x81")) {
        size_t n = 0;

        for (size_t i = 0; i < len; n++)
            if (strncmp(text + i, "\xe2\x96\x81", 3) == 0) {
                spaced[n] = ' ';
                i += 3;
            } else {
                spaced[n] = text[i++];
            }
        return tern_hf_vocab_set(v, id, spaced, n, TERN_TOKEN_USER, SCORE_SPECIAL, true, err);
    }
    return tern_hf_vocab_set(v, id, text, len,
                             unknown   ? TERN_TOKEN_UNKNOWN
                             : special ? TERN_TOKEN_CONTROL
                                       : TERN_TOKEN_USER,
                             SCORE_SPECIAL, true, err);
}

enum tern_status tern_hf_vocab_merge(struct tern_hf_vocab *v, const char *left, size_t n_left,
                                     const char *right, size_t n_right, struct tern_err *err)
{
    char *line;

    if (n_left == 0 || n_right == 0 || memchr(left, ' ', n_left) || memchr(right, ' ', n_right))
        return TERN_FAIL(err, TERN_ERR_FORMAT, "%s: merge %zu is not two texts in the alphabet of bytes",
                         v->name, v->n_merges);
    if (n_left > TERN_MAX_TOKEN_BYTES || n_right > TERN_MAX_TOKEN_BYTES || v->n_merges >= 4 * TERN_MAX_VOCAB)
        return TERN_FAIL(err, TERN_ERR_LIMIT, "%s: merge %zu is too long, or one too many", v->name,
                         v->n_merges);
    if (v->n_merges == v->cap_merges) {
        size_t cap = v->cap_merges ? 2 * v->cap_merges : 1024;
        char **bigger = realloc(v->merges, cap * sizeof *bigger);

        if (!bigger)
            return TERN_FAIL(err, TERN_ERR_MEMORY, "no memory for %zu merges", cap);
        v->merges = bigger;
        v->cap_merges = cap;
    }
    line = malloc(n_left + n_right + 2);
    if (!line)
        return TERN_FAIL(err, TERN_ERR_MEMORY, "no memory for %zu merges", v->n_merges);
    memcpy(line, left, n_left);
    line[n_left] = ' ';
    memcpy(line + n_left + 1, right, n_right);
    line[n_left + n_right + 1] = '\0';
    v->merges[v->n_merges++] = line;
    return TERN_OK;
}

int64_t tern_hf_vocab_find(const struct tern_hf_vocab *v, const char *text)
{
    int64_t found = -1;

    for (uint32_t id = 0; id < v->n; id++) {
        if (!v->texts[id] || strcmp(v->texts[id], text) != 0)
            continue;
        if (v->types[id] == TERN_TOKEN_CONTROL)
            return id;
        found = found < 0 ? id : found;
    }
    return found;
}

/* all: without the key, readers would assume a token; all ones say that there is none. */
static void put_id(struct tern_gguf_writer *w, const char *key, int64_t id, bool all)
{
    if (id >= 0 || all)
        tern_gguf_put_u32(w, key, id < 0 ? UINT32_MAX : (uint32_t)id);
}

static void put_flag(struct tern_gguf_writer *w, const char *key, int flag, int64_t id)
{
    if (flag >= 0)
        tern_gguf_put_bool(w, key, flag && id >= 0);
}

/* All of n_room: texts and types where none is known. */
static enum tern_status put_tokens(const struct tern_hf_vocab *v, struct tern_gguf_writer *w,
                                   struct tern_err *err)
{
    char **texts = malloc(v->n_room * sizeof *texts), (*names)[16] = malloc(v->n_room * sizeof *names);
    int32_t *types = malloc(v->n_room * sizeof *types);
    float *scores = malloc(v->n_room * sizeof *scores);
    enum tern_status st = TERN_OK;

    if (!texts || !names || !types || !scores) {
        st = TERN_FAIL(err, TERN_ERR_MEMORY, "no memory for %u tokens", v->n_room);
    } else {
        for (uint32_t i = 0; i < v->n_room; i++) {
            bool there = v->texts[i] != NULL;

            snprintf(names[i], sizeof names[i], "[PAD%u]", i);
            texts[i] = there ? v->texts[i] : names[i];
            types[i] = there ? v->types[i] : TERN_TOKEN_UNUSED;
            scores[i] = there ? v->scores[i] : SCORE_PADDING;
        }
        tern_gguf_put_strings(w, "tokenizer.ggml.tokens", texts, v->n_room);
        tern_gguf_put_i32s(w, "tokenizer.ggml.token_type", types, v->n_room);
        if (v->spm)
            tern_gguf_put_f32s(w, "tokenizer.ggml.scores", scores, v->n_room);
        else
            tern_gguf_put_strings(w, "tokenizer.ggml.merges", v->merges, v->n_merges);
    }
    free(texts);
    free(names);
    free(types);
    free(scores);
    return st;
}

enum tern_status tern_hf_vocab_put(const struct tern_hf_vocab *v, struct tern_gguf_writer *w,
                                   struct tern_err *err)
{
    enum tern_status st;

    tern_gguf_put_string(w, "tokenizer.ggml.model", v->spm ? "llama" : "gpt2");
    tern_gguf_put_string(w, "tokenizer.ggml.pre", v->spm ? "default" : v->pre);
    if ((st = put_tokens(v, w, err)) != TERN_OK)
        return st;
    put_id(w, "tokenizer.ggml.bos_token_id", v->bos, v->spm);
    put_id(w, "tokenizer.ggml.eos_token_id", v->eos, v->spm);
    put_id(w, "tokenizer.ggml.eot_token_id", v->eot, false);
    put_id(w, "tokenizer.ggml.unknown_token_id", v->unknown, v->spm);
    put_id(w, "tokenizer.ggml.padding_token_id", v->pad, false);
    put_flag(w, "tokenizer.ggml.add_bos_token", v->add_bos, v->bos);
    put_flag(w, "tokenizer.ggml.add_eos_token", v->add_eos, v->eos);
    if (v->spm)
        tern_gguf_put_bool(w, "tokenizer.ggml.add_space_prefix", v->add_space != 0);
    if (v->chat_template)
        tern_gguf_put_string(w, "tokenizer.chat_template", v->chat_template);
    return TERN_OK;
}
