/* SPDX-License-Identifier: Apache-2.0 */
/* Options about model files: see file_option.h. */
#include "engine/file_option.h"

#include "engine/gguf_override.h"
#include "engine/option.h"

#include <stdbool.h>
#include <string.h>

const char tern_file_option_help[] =
    "      --i2s-layout A|B|C    bit layout of I2_S tensors (default: A, that of all published files)\n"
    "      --tl-tiles MxK=BM,BK,bm[:...]\n"
    "                            tiles of TL1 and TL2 tensors of M rows and K columns, which files do\n"
    "                            not tell (default: those bitnet.cpp ships for the shape)\n"
    "      --override-kv KEY=TYPE:VALUE\n"
    "                            metadata instead of the file's; TYPE is int, float, bool or str\n"
    "      --quantize            make matrices of floats ternary that are not (absmean), instead of\n"
    "                            refusing them\n";

/* Moves *at over a number, and over `mark` behind it; the last number of a shape has none. */
static bool number(const char **at, char mark, uint32_t *out)
{
    const char *p = *at;
    uint64_t v = 0;

    while (*p >= '0' && *p <= '9' && v <= UINT32_MAX)
        v = v * 10 + (uint64_t)(*p++ - '0');
    if (p == *at || v == 0 || v > UINT32_MAX || (mark != '\0' && *p != mark))
        return false;
    *out = (uint32_t)v;
    *at = p + (mark != '\0');
    return true;
}

/* One shape: "1536x4096=256,128,32". */
static bool shape(const char **at, struct tern_tl_tiles *t)
{
    return number(at, 'x', &t->m) && number(at, '=', &t->k) && number(at, ',', &t->bm) &&
           number(at, ',', &t->by) && number(at, '\0', &t->strip) && (**at == ':' || **at == '\0');
}

static enum tern_status take_tiles(struct tern_file_options *o, const char *arg, struct tern_err *err)
{
    struct tern_file_options with = *o;
    const char *at = arg;

    for (;;) {
        if (with.n_tl_tiles == TERN_MAX_TL_TILES)
            return TERN_FAIL(err, TERN_ERR_LIMIT, "--tl-tiles: at most %d shapes can be given",
                             TERN_MAX_TL_TILES);
        if (!shape(&at, &with.tl_tiles[with.n_tl_tiles++]))
            return TERN_FAIL(err, TERN_ERR_USAGE,
                             "--tl-tiles: '%s' is not MxK=BM,BK,bm in whole numbers, such as "
                             "1536x4096=256,128,32; colons go between several",
                             arg);
        if (*at++ == '\0')
            break;
    }
    with.tl_words[with.n_tl_words++] = arg; /* each brought at least one */
    *o = with;
    return TERN_OK;
}

static enum tern_status take_override(struct tern_file_options *o, const char *arg, struct tern_err *err)
{
    enum tern_status st = tern_override_check(arg, err);

    if (st)
        return st;
    if (o->n_overrides == TERN_MAX_OVERRIDES)
        return TERN_FAIL(err, TERN_ERR_LIMIT, "--override-kv: at most %d can be given", TERN_MAX_OVERRIDES);
    o->overrides[o->n_overrides++] = arg;
    return TERN_OK;
}

enum tern_status tern_file_option(struct tern_file_options *o, int c, const char *arg, struct tern_err *err)
{
    switch (c) {
    case TERN_FILE_OPT_I2S: return tern_option_i2s(arg, &o->i2s_layout, err);
    case TERN_FILE_OPT_TL_TILES: return take_tiles(o, arg, err);
    case TERN_FILE_OPT_OVERRIDE: return take_override(o, arg, err);
    case TERN_FILE_OPT_QUANTIZE: o->quantize = true; return TERN_OK;
    default: return TERN_END;
    }
}

size_t tern_file_option_words(const struct tern_file_options *o, const char *words[static TERN_FILE_WORDS])
{
    static const char *const letters[] = { "A", "B", "C" };
    size_t n = 0;

    words[n++] = "--i2s-layout";
    words[n++] = letters[o->i2s_layout];
    for (uint32_t i = 0; i < o->n_tl_words; i++) {
        words[n++] = "--tl-tiles";
        words[n++] = o->tl_words[i];
    }
    for (uint32_t i = 0; i < o->n_overrides; i++) {
        words[n++] = "--override-kv";
        words[n++] = o->overrides[i];
    }
    if (o->quantize)
        words[n++] = "--quantize";
    return n;
}
