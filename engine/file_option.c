/* SPDX-License-Identifier: Apache-2.0 */
/* Options about model files: see file_option.h. */
#include "engine/file_option.h"

#include "engine/option.h"

const char tern_file_option_help[] =
    "      --i2s-layout A|B|C    bit layout of I2_S tensors (default: A, that of all published files)\n"
    "      --override-kv KEY=TYPE:VALUE\n"
    "                            metadata instead of the file's; TYPE is int, float, bool or str\n";

static enum tern_status take_override(struct tern_file_options *o, const char *arg, struct tern_err *err)
{
    if (o->n_overrides == TERN_MAX_OVERRIDES)
        return TERN_FAIL(err, TERN_ERR_LIMIT, "--override-kv: at most %d can be given", TERN_MAX_OVERRIDES);
    o->overrides[o->n_overrides++] = arg;
    return TERN_OK;
}

enum tern_status tern_file_option(struct tern_file_options *o, int c, const char *arg, struct tern_err *err)
{
    switch (c) {
    case TERN_FILE_OPT_I2S: return tern_option_i2s(arg, &o->i2s_layout, err);
    case TERN_FILE_OPT_OVERRIDE: return take_override(o, arg, err);
    default: return TERN_END;
    }
}

size_t tern_file_option_words(const struct tern_file_options *o, const char *words[static TERN_FILE_WORDS])
{
    static const char *const letters[] = { "A", "B", "C" };
    size_t n = 0;

    words[n++] = "--i2s-layout";
    words[n++] = letters[o->i2s_layout];
    for (uint32_t i = 0; i < o->n_overrides; i++) {
        words[n++] = "--override-kv";
        words[n++] = o->overrides[i];
    }
    return n;
}
