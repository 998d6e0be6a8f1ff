/* SPDX-License-Identifier: Apache-2.0 */
/* Metadata of a folder: see hf_metadata.h. */
#include "engine/hf_metadata.h"

#include "engine/hf_json.h"
#include "engine/hf_shards.h"

#include <stdio.h>
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
    tern_swa_put(&c->swa, c->arch, c->n_layers, w);
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
static enum tern_status read_pooling(const char *folder, const char *file, const json_t *config,
                                     uint32_t *out, struct tern_err *err)
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
                         "%s/%s: does not ask for exactly one of the poolings mean, cls and lasttoken",
                         folder, file);
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

enum tern_status tern_hf_put_pooling(const char *folder, const struct tern_hf_config *c, bool embeds,
                                     struct tern_gguf_writer *w, struct tern_err *err)
{
    uint32_t type = embeds ? TERN_POOL_LAST : TERN_POOL_NONE;
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
        st = read_pooling(folder, path, config, &type, err);
    json_decref(config);
    if (st && st != TERN_END)
        return st;
    if (type != TERN_POOL_NONE)
        tern_gguf_put_u32(w, make_key(c, "pooling_type").text, type);
    return TERN_OK;
}
