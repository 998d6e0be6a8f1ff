/* SPDX-License-Identifier: Apache-2.0 */
/* Joining the parts of a split GGUF file: see gguf_split.h. */
#include "engine/gguf_split.h"

#include "engine/base/limits.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SUFFIX_BYTES 20 /* "-00001-of-00003.gguf" */

/* What a part says of itself. */
struct part {
    uint64_t count; /* 0: it is not split */
    uint64_t no;    /* from 0 */
    uint64_t n_tensors;
    bool says_tensors;
};

static enum tern_status read_part(const struct tern_gguf *g, struct part *out, struct tern_err *err)
{
    struct part p = { 0 };
    enum tern_status st = tern_gguf_u64(g, "split.count", &p.count, err);

    if (st == TERN_OK)
        st = tern_gguf_u64(g, "split.no", &p.no, err);
    if (st == TERN_OK || st == TERN_END) {
        st = tern_gguf_u64(g, "split.tensors.count", &p.n_tensors, err);
        p.says_tensors = st == TERN_OK;
    }
    if (st && st != TERN_END)
        return st;
    *out = p;
    return TERN_OK;
}

/* The path of part no (from 0); false when the path given does not end as that of the first part does. */
static bool part_path(const char *first, uint64_t no, uint64_t count, char out[static PATH_MAX])
{
    char suffix[32];
    size_t n = strlen(first);

    snprintf(suffix, sizeof suffix, "-00001-of-%05llu.gguf", (unsigned long long)count);
    if (n < SUFFIX_BYTES || n >= PATH_MAX || strcmp(first + n - SUFFIX_BYTES, suffix) != 0)
        return false;
    memcpy(out, first, n - SUFFIX_BYTES);
    snprintf(out + n - SUFFIX_BYTES, SUFFIX_BYTES + 1, "-%05u-of-%05u.gguf", (unsigned)no + 1,
             (unsigned)count);
    return true;
}

/* The first part as the user must have given it. */
static enum tern_status check_first(const char *path, const struct tern_gguf *g, const struct part *p,
                                    struct tern_err *err)
{
    char other[PATH_MAX];

    if (p->no >= p->count)
        return TERN_FAIL(err, TERN_ERR_FORMAT, "%s: says it is part %llu of %llu; the file is damaged",
                         g->name, (unsigned long long)p->no + 1, (unsigned long long)p->count);
    if (p->count > TERN_MAX_PARTS)
        return TERN_FAIL(err, TERN_ERR_LIMIT, "%s: is split into %llu parts, at most %d are allowed", g->name,
                         (unsigned long long)p->count, TERN_MAX_PARTS);
    if (p->no > 0)
        return TERN_FAIL(err, TERN_ERR_USAGE,
                         "%s: is part %llu of %llu of a split model; give the first one, whose name ends in "
                         "-00001-of-%05llu.gguf",
                         g->name, (unsigned long long)p->no + 1, (unsigned long long)p->count,
                         (unsigned long long)p->count);
    if (!part_path(path, 0, p->count, other))
        return TERN_FAIL(
            err, TERN_ERR_USAGE,
            "%s: is the first of %llu parts, but its name does not end in -00001-of-%05llu.gguf, "
            "from which those of the others follow",
            g->name, (unsigned long long)p->count, (unsigned long long)p->count);
    return TERN_OK;
}

/* Tensors and mappings gathered so far; the first mapping is that of the first part. */
struct gathering {
    struct tern_gguf *first;
    struct part part; /* of the first */
    struct tern_tensor *tensors;
    size_t n_tensors;
    size_t n_maps;
};

static enum tern_status check_part(const struct gathering *all, const struct tern_gguf *g, uint64_t no,
                                   struct tern_err *err)
{
    struct part p;
    enum tern_status st = read_part(g, &p, err);

    if (st)
        return st;
    if (p.no != no || p.count != all->part.count || p.says_tensors != all->part.says_tensors ||
        p.n_tensors != all->part.n_tensors)
        return TERN_FAIL(
            err, TERN_ERR_FORMAT,
            "%s: should be part %llu of %llu but says it is part %llu of %llu; the parts are not "
            "of one model",
            g->name, (unsigned long long)no + 1, (unsigned long long)all->part.count,
            (unsigned long long)p.no + 1, (unsigned long long)p.count);
    if (all->n_tensors + g->n_tensors > TERN_MAX_TENSORS)
        return TERN_FAIL(err, TERN_ERR_LIMIT, "%s: its parts have more than %d tensors in all",
                         all->first->name, TERN_MAX_TENSORS);
    /* Only the first part says what its ids mean. */
    for (size_t i = 0; i < g->n_tensors; i++)
        if (tern_gguf_is_mxfp4(all->first, &g->tensors[i]))
            return TERN_FAIL(err, TERN_ERR_UNSUPPORTED,
                             "%s: tensor '%.*s' has type MXFP4; it is not ternary, and Tern cannot read it",
                             g->name, TERN_STR_ARGS(g->tensors[i].name));
    return TERN_OK;
}

/* Takes the tensors and the mapping of a part, whose directory is then of no use.  The first part's list of
 * mappings has room. */
static enum tern_status take_part(struct gathering *all, struct tern_gguf *g, struct tern_err *err)
{
    size_t n = all->n_tensors + g->n_tensors;
    struct tern_tensor *tensors = realloc(all->tensors, (n + 1) * sizeof *tensors);

    if (!tensors)
        return TERN_FAIL(err, TERN_ERR_MEMORY, "no memory for the tensors of %s", all->first->name);
    all->tensors = tensors;
    for (size_t i = 0; i < g->n_tensors; i++) {
        tensors[all->n_tensors + i] = g->tensors[i];
        tensors[all->n_tensors + i].map = (uint32_t)all->n_maps;
    }
    all->n_tensors = n;
    if (all->n_maps > 0) {
        all->first->maps[all->n_maps] = g->maps[0];
        g->n_maps = 0;
    }
    all->n_maps++;
    return TERN_OK;
}

static enum tern_status add_part(struct gathering *all, const char *first, uint64_t no, struct tern_err *err)
{
    char path[PATH_MAX];
    struct tern_gguf *g = NULL;
    enum tern_status st;

    TERN_BUG_IF(!part_path(first, no, all->part.count, path));
    st = tern_gguf_open(path, &g, err);
    if (!st)
        st = check_part(all, g, no, err);
    if (!st)
        st = take_part(all, g, err);
    tern_gguf_close(&g);
    return st;
}

static enum tern_status gather(struct gathering *all, const char *path, struct tern_err *err)
{
    struct tern_mapping *maps =
        realloc(all->first->maps, (size_t)all->part.count * sizeof *maps); /* count <= TERN_MAX_PARTS */
    enum tern_status st;

    if (!maps)
        return TERN_FAIL(err, TERN_ERR_MEMORY, "no memory for the parts of %s", all->first->name);
    all->first->maps = maps;
    st = take_part(all, all->first, err);
    for (uint64_t no = 1; !st && no < all->part.count; no++)
        st = add_part(all, path, no, err);
    if (st)
        return st;
    if (all->part.says_tensors && all->part.n_tensors != all->n_tensors)
        return TERN_FAIL(err, TERN_ERR_FORMAT,
                         "%s: its %llu parts have %zu tensors and should have %llu; get all of them again",
                         all->first->name, (unsigned long long)all->part.count, all->n_tensors,
                         (unsigned long long)all->part.n_tensors);
    return tern_gguf_adopt(all->first, all->tensors, all->n_tensors, maps, all->n_maps, err);
}

enum tern_status tern_split_join(const char *path, struct tern_gguf *g, struct tern_err *err)
{
    struct gathering all = { .first = g };
    enum tern_status st = read_part(g, &all.part, err);

    if (st || all.part.count <= 1)
        return st;
    st = check_first(path, g, &all.part, err);
    if (!st)
        st = gather(&all, path, err);
    if (st) {
        for (size_t i = g->n_maps; i < all.n_maps; i++)
            tern_mapping_close(&g->maps[i]);
        free(all.tensors);
    }
    return st;
}
