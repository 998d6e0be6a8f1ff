/* SPDX-License-Identifier: Apache-2.0 */
/* Synthetic models as files: see synthetic_file.h. */
#include "coordinator/synthetic_file.h"

#include "coordinator/new_file.h"
#include "coordinator/progress.h"
#include "engine/quant_row.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

/* -- options --------------------------------------------------------------------------------------------- */

enum tern_status synthetic_file_shape(const char *name, struct tern_synthetic *out, struct tern_err *err)
{
    char known[TERN_ERR_TEXT_BYTES] = "";

    if (tern_synthetic_by_name(name, out))
        return TERN_OK;
    for (size_t i = 0; tern_synthetic_name(i); i++)
        snprintf(known + strlen(known), sizeof known - strlen(known), "%s%s", i ? ", " : "",
                 tern_synthetic_name(i));
    return TERN_FAIL(err, TERN_ERR_USAGE, "--synthetic: no shape is called '%.40s'; there are %s", name,
                     known);
}

enum tern_status synthetic_file_type(const char *name, uint32_t *out, struct tern_err *err)
{
    uint32_t type;

    if (!tern_quant_type_by_name(name, &type) ||
        (type != TERN_TYPE_I2_S && type != TERN_TYPE_TQ1_0 && type != TERN_TYPE_TQ2_0))
        return TERN_FAIL(err, TERN_ERR_USAGE, "--type: '%.40s' is not i2_s, tq1_0 or tq2_0", name);
    *out = type;
    return TERN_OK;
}

enum tern_status synthetic_file_embd(const char *option, const char *name, uint32_t *out,
                                     struct tern_err *err)
{
    uint32_t type;
    size_t elems, bytes;

    if (!tern_quant_type_by_name(name, &type) || !tern_dtype_block(type, &elems, &bytes))
        return TERN_FAIL(err, TERN_ERR_USAGE,
                         "%s: '%.40s' is not f32, f16, bf16, q8_0, q6_k, q4_0, q4_k or tq2_0", option, name);
    *out = type;
    return TERN_OK;
}

/* -- the file -------------------------------------------------------------------------------------------- */

static enum tern_status write_to(const struct tern_synthetic *s, struct new_file *n,
                                 const struct synthetic_file_options *o, struct tern_err *err)
{
    struct progress progress;
    struct tern_kernels kern;
    struct tern_pool *pool = NULL;
    enum tern_status st;

    tern_kernels_init(&kern, o->cpu);
    progress_begin(&progress, "writing the model", o->quiet);
    if (!(st = tern_pool_new(o->threads, &pool, err)))
        st = tern_synthetic_write(s, n->f, n->temp, pool, &kern, progress_update, &progress, err);
    progress_end(&progress);
    tern_pool_free(&pool);
    return st;
}

/* A whole file, still open under its temporary name. */
static enum tern_status make_temp(const struct tern_synthetic *s, const char *path, struct new_file *n,
                                  const struct synthetic_file_options *o, struct tern_err *err)
{
    uint64_t bytes;
    enum tern_status st = tern_synthetic_bytes(s, &bytes, err);

    if (st || (st = new_file_open(n, path, bytes, o->quiet, err)))
        return st;
    if ((st = write_to(s, n, o, err)))
        new_file_remove(n);
    return st;
}

enum tern_status synthetic_file_write(const struct tern_synthetic *s, const char *path,
                                      const struct synthetic_file_options *o, struct tern_err *err)
{
    struct new_file n;
    enum tern_status st = new_file_check(path, o->force, err);

    if (!st)
        st = make_temp(s, path, &n, o, err);
    return st ? st : new_file_rename(&n, path, err);
}

enum tern_status synthetic_file_temporary(const struct tern_synthetic *s,
                                          const struct synthetic_file_options *o, char *path, size_t cap,
                                          struct tern_err *err)
{
    const char *dir = getenv("TMPDIR");
    char temp[PATH_MAX];
    struct new_file n;
    enum tern_status st;

    if (!dir || dir[0] != '/')
        dir = "/var/tmp"; /* on a disk, where /tmp may be memory */
    if ((size_t)snprintf(temp, sizeof temp, "%s/tern-%s-XXXXXX", dir, s->name) >= sizeof temp ||
        strlen(temp) >= cap)
        return TERN_FAIL(err, TERN_ERR_USAGE, "TMPDIR is too long");
    if ((st = make_temp(s, temp, &n, o, err)))
        return st;
    if ((st = new_file_close(&n, err)))
        new_file_remove(&n);
    else
        snprintf(path, cap, "%s", n.temp);
    return st;
}
