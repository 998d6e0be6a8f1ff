/* SPDX-License-Identifier: Apache-2.0 */
/* Metadata of a folder: see hf_metadata.h. */
#include "engine/hf_metadata.h"

#include "engine/hf_json.h"
#include "engine/hf_shards.h"
#include "engine/mapping.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A key of the architecture: "llama.block_count". */
struct key {
    char text[96];
};

static struct key make_key(const struct tern_hf_config *c, const char *name)
{
    struct key k;

    snprintf(k.text, sizeof k.text, "%s.%s", c->arch, name);
    return k;
}

void tern_hf_put_config(const struct tern_hf_config *c, const char *name, uint32_t n_vocab,
                        uint32_t file_type, struct tern_gguf_writer *w)
{
    static const char *const activations[] = {
        [TERN_RELU2] = "relu2", [TERN_SILU] = "silu", [TERN_GELU] = "gelu"
    };
    const struct {
        const char *key;
        uint32_t value;
    } numbers[] = {
        { "vocab_size", n_vocab },
        { "context_length", c->n_ctx },
        { "embedding_length", c->n_embd },
        { "block_count", c->n_layers },
        { "feed_forward_length", c->n_ffn },
        { "rope.dimension_count", c->head_dim },
        { "attention.head_count", c->n_heads },
        { "attention.head_count_kv", c->n_kv_heads },
        { "attention.key_length", c->head_dim },
        { "attention.value_length", c->head_dim },
    };

    tern_gguf_put_string(w, "general.architecture", c->arch);
    tern_gguf_put_string(w, "general.name", name);
    tern_gguf_put_u32(w, "general.file_type", file_type);
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++)
        tern_gguf_put_u32(w, make_key(c, numbers[i].key).text, numbers[i].value);
    tern_gguf_put_f32(w, make_key(c, "attention.layer_norm_rms_epsilon").text, (float)c->rms_eps);
    tern_gguf_put_f32(w, make_key(c, "rope.freq_base").text, (float)c->rope_theta);
    if (c->odd_activation)
        tern_gguf_put_string(w, make_key(c, "activation").text, activations[c->activation]);
    if (!c->is_causal)
        tern_gguf_put_bool(w, make_key(c, "attention.causal").text, false);
}

/* -- pooling --------------------------------------------------------------------------------------------- */

static const struct {
    const char *flag, *name; /* of older and of newer configurations */
    uint32_t type;           /* of GGUF; 0: not computed */
} poolings[] = {
    { "pooling_mode_mean_tokens", "mean", TERN_POOL_MEAN },
    { "pooling_mode_cls_token", "cls", TERN_POOL_CLS },
    { "pooling_mode_lasttoken", "lasttoken", TERN_POOL_LAST },
    { "pooling_mode_max_tokens", "max", 0 },
    { "pooling_mode_mean_sqrt_len_tokens", "mean_sqrt_len_tokens", 0 },
    { "pooling_mode_weightedmean_tokens", "weightedmean", 0 },
};

/* Exactly one way that Tern computes. */
static enum tern_status read_pooling(const char *file, const json_t *config, uint32_t *out,
                                     struct tern_err *err)
{
    const char *name = tern_hf_json_text(config, "pooling_mode");
    uint32_t type = 0;
    size_t n = 0;

    for (size_t i = 0; i < sizeof poolings / sizeof poolings[0]; i++)
        if (name ? strcmp(name, poolings[i].name) == 0 : tern_hf_json_is_true(config, poolings[i].flag)) {
            type = poolings[i].type;
            n++;
        }
    if (n != 1 || type == 0)
        return TERN_FAIL(err, TERN_ERR_UNSUPPORTED,
                         "%s: does not ask for exactly one of the poolings mean, cls and lasttoken", file);
    *out = type;
    return TERN_OK;
}

/* modules.json lists what a text goes through; *pooling: the folder of the step that pools. */
static enum tern_status read_modules(const char *folder, const json_t *modules, char *pooling, size_t room,
                                     struct tern_err *err)
{
    for (size_t i = 0; i < json_array_size(modules); i++) {
        const char *type = tern_hf_json_text(json_array_get(modules, i), "type");
        const char *path = tern_hf_json_text(json_array_get(modules, i), "path"), *last;

        last = type ? strrchr(type, '.') : NULL;
        last = last ? last + 1 : type;
        if (last && strcmp(last, "Pooling") == 0 && path && tern_hf_is_plain_name(path))
            snprintf(pooling, room, "%s", path);
        else if (!last || (strcmp(last, "Transformer") != 0 && strcmp(last, "Normalize") != 0))
            return TERN_FAIL(err, TERN_ERR_UNSUPPORTED,
                             "%s/modules.json: embeddings go through a module '%.60s', which Tern does not "
                             "compute",
                             folder, last ? last : "without a type");
    }
    return TERN_OK;
}

enum tern_status tern_hf_put_pooling(const char *folder, const struct tern_hf_config *c,
                                     struct tern_gguf_writer *w, struct tern_err *err)
{
    uint32_t type = c->has_head ? TERN_POOL_NONE : TERN_POOL_LAST;
    char path[300], step[256] = "1_Pooling";
    json_t *modules = NULL, *config = NULL;
    enum tern_status st = tern_hf_json_read_array(folder, "modules.json", &modules, err);

    if (!st)
        st = read_modules(folder, modules, step, sizeof step, err);
    json_decref(modules);
    if (st && st != TERN_END)
        return st;
    snprintf(path, sizeof path, "%s/config.json", step);
    st = tern_hf_json_read(folder, path, &config, err);
    if (!st)
        st = read_pooling(path, config, &type, err);
    json_decref(config);
    if (st && st != TERN_END)
        return st;
    if (type != TERN_POOL_NONE)
        tern_gguf_put_u32(w, make_key(c, "pooling_type").text, type);
    return TERN_OK;
}

/* -- special tokens -------------------------------------------------------------------------------------- */

static void put_ids(const struct tern_hf_config *c, const struct tern_gguf *tokenizer,
                    struct tern_gguf_writer *w)
{
    static const char *const keys[] = { "tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id",
                                        "tokenizer.ggml.eom_token_id" };
    uint64_t known[3];
    bool has[3];

    if (c->has_bos && !tern_gguf_find(tokenizer, "tokenizer.ggml.bos_token_id"))
        tern_gguf_put_u32(w, "tokenizer.ggml.bos_token_id", c->bos);
    for (size_t k = 0; k < 3; k++)
        has[k] = tern_gguf_u64(tokenizer, keys[k], &known[k], NULL) == TERN_OK;
    for (size_t i = 0; i < c->n_eos; i++) {
        size_t k = 0;

        while (k < 3 && !(has[k] && known[k] == c->eos[i]))
            k++;
        if (k < 3)
            continue; /* known already */
        for (k = 0; k < 3 && has[k];)
            k++;
        if (k == 3)
            return; /* GGUF has no more places for them */
        has[k] = true;
        known[k] = c->eos[i];
        tern_gguf_put_u32(w, keys[k], c->eos[i]);
    }
}

/* The file chat_template.jinja, as a string to be freed; TERN_END when there is none. */
static enum tern_status read_template_file(const char *folder, char **out, struct tern_err *err)
{
    char *path = tern_hf_path(folder, "chat_template.jinja");
    struct tern_mapping map;
    struct tern_err why;
    enum tern_status st;

    if (!path)
        return TERN_FAIL(err, TERN_ERR_MEMORY, "no memory to read a chat template");
    st = tern_mapping_open(path, &map, &why);
    free(path);
    if (st) {
        if (why.sys_errno == ENOENT)
            return TERN_END;
        if (err)
            *err = why;
        return st;
    }
    if (map.size > TERN_MAX_HF_JSON || memchr(map.bytes, 0, map.size))
        st =
            TERN_FAIL(err, TERN_ERR_FORMAT, "%s: is no text of at most %d bytes", map.path, TERN_MAX_HF_JSON);
    else if (!(*out = strndup((const char *)map.bytes, map.size)))
        st = TERN_FAIL(err, TERN_ERR_MEMORY, "no memory to read a chat template");
    tern_mapping_close(&map);
    return st;
}

/* A string, or a list of {name, template}, of which "default" is taken, else the first. */
static const char *pick_template(const json_t *config)
{
    const json_t *t = tern_hf_json_get(config, "chat_template");
    const char *picked = tern_hf_json_text(json_array_get(t, 0), "template");

    for (size_t i = 0; i < json_array_size(t); i++) {
        const char *name = tern_hf_json_text(json_array_get(t, i), "name");

        if (name && strcmp(name, "default") == 0)
            picked = tern_hf_json_text(json_array_get(t, i), "template");
    }
    return json_is_string(t) ? json_string_value(t) : picked;
}

static enum tern_status put_template(const char *folder, struct tern_gguf_writer *w, struct tern_err *err)
{
    static const char key[] = "tokenizer.chat_template";
    char *text = NULL;
    json_t *config = NULL;
    enum tern_status st = read_template_file(folder, &text, err);

    if (!st)
        tern_gguf_put_string(w, key, text);
    free(text);
    if (st != TERN_END)
        return st;
    st = tern_hf_json_read(folder, "tokenizer_config.json", &config, err);
    if (!st && pick_template(config))
        tern_gguf_put_string(w, key, pick_template(config));
    json_decref(config);
    return st == TERN_END ? TERN_OK : st;
}

enum tern_status tern_hf_put_specials(const char *folder, const struct tern_hf_config *c,
                                      const struct tern_gguf *tokenizer, struct tern_gguf_writer *w,
                                      struct tern_err *err)
{
    put_ids(c, tokenizer, w);
    return tern_gguf_find(tokenizer, "tokenizer.chat_template") ? TERN_OK : put_template(folder, w, err);
}
