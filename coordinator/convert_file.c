/* SPDX-License-Identifier: Apache-2.0 */
/* From model to model: see convert_file.h. */
#include "coordinator/convert_file.h"

#include "coordinator/new_file.h"
#include "coordinator/progress.h"
#include "engine/arch.h"
#include "engine/base/log.h"
#include "engine/i2s_check.h"
#include "engine/option.h"
#include "engine/quant_row.h"

#include <string.h>
#include <sys/stat.h>

enum tern_status convert_file_type(const char *name, uint32_t *out, struct tern_err *err)
{
    uint32_t type;

    if (strcmp(name, "keep") == 0) {
        *out = TERN_CONVERT_KEEP;
        return TERN_OK;
    }
    if (!tern_quant_type_by_name(name, &type) ||
        (type != TERN_TYPE_I2_S && type != TERN_TYPE_TQ1_0 && type != TERN_TYPE_TQ2_0 && type != TERN_F16 &&
         type != TERN_F32))
        return TERN_FAIL(err, TERN_ERR_USAGE, "--type: '%.40s' is not i2_s, tq1_0, tq2_0, f16, f32 or keep",
                         name);
    *out = type;
    return TERN_OK;
}

static enum tern_status write_to(struct tern_conversion *c, struct new_file *n, struct tern_pool *pool,
                                 const struct convert_file_options *o, struct tern_err *err)
{
    struct progress progress;
    struct tern_kernels kern;
    enum tern_status st;

    tern_kernels_init(&kern, o->cpu);
    progress_begin(&progress, "writing the model", o->quiet);
    st = tern_convert_write(c, n->f, n->temp, pool, &kern, progress_update, &progress, err);
    progress_end(&progress);
    if (st)
        return st;
    progress_begin(&progress, "comparing it with its source", o->quiet);
    st = tern_convert_seal(c, n->temp, fileno(n->f), pool, progress_update, &progress, err);
    progress_end(&progress);
    return st;
}

/* A file of another layout than it is read in would be garbage for good. */
static enum tern_status look_at_layout(const struct tern_gguf *g, const struct tern_arch *arch,
                                       struct tern_pool *pool, struct tern_err *err)
{
    struct tern_i2s_check check;
    const enum tern_i2s_layout read = tern_model_file_options(g)->i2s_layout;
    enum tern_status st = tern_i2s_check(g, arch, pool, &check, err);

    if (!st && check.pairs && check.sure && check.likely != read)
        tern_log(TERN_LOG_WARN, "layout",
                 "%s is read as I2_S in layout %c and looks like layout %c; see tern inspect --verify",
                 g->name, 'A' + (int)read, 'A' + (int)check.likely);
    return st;
}

/* A file of the model under whatever name: it would be replaced while it is mapped. */
static bool is_of_model(const char *path, const struct tern_gguf *g)
{
    struct stat sb;

    if (stat(path, &sb) != 0)
        return false;
    for (size_t i = 0; i < g->n_maps; i++)
        if (g->maps[i].dev == (uint64_t)sb.st_dev && g->maps[i].ino == (uint64_t)sb.st_ino)
            return true;
    return false;
}

static bool is_same_file(const char *a, const char *b)
{
    struct stat x, y;

    return stat(a, &x) == 0 && stat(b, &y) == 0 && x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}

static enum tern_status convert_model(const struct tern_gguf *g, const struct convert_file_options *o,
                                      struct tern_err *err)
{
    struct tern_convert_options to = o->to;
    struct tern_conversion *c = NULL;
    struct tern_pool *pool = NULL;
    struct tern_arch arch;
    struct new_file n;
    enum tern_status st = tern_arch_read(g, &arch, err);

    to.slice = o->layers != NULL;
    to.bf16_to_f16 = g->owned != NULL; /* of a folder, whose metadata Tern has made */
    if (!o->type_given)
        to.type = to.slice && !to.bf16_to_f16 ? TERN_CONVERT_KEEP : TERN_TYPE_I2_S;
    if (!st && to.slice)
        st = tern_option_layers(o->layers, "the model", arch.n_layers, &to.first, &to.last, err);
    if (!st)
        st = tern_pool_new(o->threads, &pool, err);
    if (!st)
        st = look_at_layout(g, &arch, pool, err);
    if (!st)
        st = tern_convert_plan(g, &to, &c, err);
    if (!st)
        st = new_file_open(&n, o->output, tern_convert_bytes(c), o->quiet, err);
    if (!st) {
        st = write_to(c, &n, pool, o, err);
        if (st)
            new_file_remove(&n);
        else
            st = new_file_rename(&n, o->output, err);
    }
    tern_convert_free(&c);
    tern_pool_free(&pool);
    return st;
}

enum tern_status convert_file(const struct convert_file_options *o, struct tern_err *err)
{
    struct tern_gguf *g = NULL;
    enum tern_status st;

    if (is_same_file(o->input, o->output))
        return TERN_FAIL(err, TERN_ERR_USAGE, "'%s' is the model itself; name another file with -o",
                         o->output);
    st = new_file_check(o->output, o->force, err);
    if (!st)
        st = tern_model_file_open(o->input, &o->file, &g, err);
    if (!st && is_of_model(o->output, g))
        st = TERN_FAIL(err, TERN_ERR_USAGE, "'%s' is a part of the model itself; name another file with -o",
                       o->output);
    if (!st)
        st = convert_model(g, o, err);
    tern_gguf_close(&g);
    return st;
}
