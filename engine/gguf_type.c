/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tensor types of GGUF files: names, blocks, and the bytes a tensor takes.
 */
#include "engine/gguf.h"

#include "engine/base/mem.h"
#include "kernels/pack.h"

#include <string.h>

#define FILE_TYPE_TL2 39 /* of general.file_type */

/* elems 0: no blocks; sized as a whole, or (HF packed) of no GGUF file, so that one that holds it is
 * refused. */
static const struct {
    uint32_t type;
    const char *name;
    uint32_t elems, bytes; /* of one block */
} types[] = {
    // clang-format off
    { 0, "F32", 1, 4 },          { 1, "F16", 1, 2 },          { 2, "Q4_0", 32, 18 },
    { 3, "Q4_1", 32, 20 },       { 6, "Q5_0", 32, 22 },       { 7, "Q5_1", 32, 24 },
    { 8, "Q8_0", 32, 34 },       { 9, "Q8_1", 32, 36 },       { 10, "Q2_K", 256, 84 },
    { 11, "Q3_K", 256, 110 },    { 12, "Q4_K", 256, 144 },    { 13, "Q5_K", 256, 176 },
    { 14, "Q6_K", 256, 210 },    { 15, "Q8_K", 256, 292 },    { 16, "IQ2_XXS", 256, 66 },
    { 17, "IQ2_XS", 256, 74 },   { 18, "IQ3_XXS", 256, 98 },  { 19, "IQ1_S", 256, 50 },
    { 20, "IQ4_NL", 32, 18 },    { 21, "IQ3_S", 256, 110 },   { 22, "IQ2_S", 256, 82 },
    { 23, "IQ4_XS", 256, 136 },  { 24, "I8", 1, 1 },          { 25, "I16", 1, 2 },
    { 26, "I32", 1, 4 },         { 27, "I64", 1, 8 },         { 28, "F64", 1, 8 },
    { 29, "IQ1_M", 256, 56 },    { 30, "BF16", 1, 2 },        { 34, "TQ1_0", 256, 54 },
    { 35, "TQ2_0", 256, 66 },    { TERN_TYPE_I2_S, "I2_S", 0, 0 },
    { TERN_TYPE_TL1, "TL1", 0, 0 },
    { TERN_TYPE_TL2, "TL2", 0, 0 },
    { TERN_TYPE_HF_PACKED, "HF packed", 0, 0 },
    // clang-format on
};

const char *tern_gguf_type_name(uint32_t type)
{
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++)
        if (types[i].type == type)
            return types[i].name;
    return NULL;
}

/* Types whose tensors have one scale, in 32 bytes behind the codes.  The forks know no stacked (3-D) matrices
 * of these types. */
static bool whole_bytes(uint32_t type, const uint64_t ne[4], size_t *bytes)
{
    size_t n;

    if (ne[2] != 1 || ne[3] != 1)
        return false;
    if (type == TERN_TYPE_TL1 || type == TERN_TYPE_TL2)
        return tern_tl_bytes(type, ne[1], ne[0], &n) && tern_add_size(n, 32, bytes);
    if (type != TERN_TYPE_I2_S || !tern_mul_size(ne[0], ne[1], &n) || n % 4 != 0)
        return false;
    return tern_add_size(n / 4, 32, bytes);
}

bool tern_gguf_tensor_bytes(uint32_t type, const uint64_t ne[4], size_t *bytes)
{
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++) {
        size_t n;

        if (types[i].type != type)
            continue;
        if (types[i].elems == 0)
            return whole_bytes(type, ne, bytes);
        if (ne[0] % types[i].elems != 0)
            return false;
        if (!tern_mul_size(ne[0] / types[i].elems, types[i].bytes, &n))
            return false;
        for (int d = 1; d < 4; d++)
            if (!tern_mul_size(n, ne[d], &n))
                return false;
        *bytes = n;
        return true;
    }
    return false;
}

bool tern_gguf_is_mxfp4(const struct tern_gguf *g, const struct tern_tensor *t)
{
    struct tern_str arch = { "", 0 };
    uint64_t file_type = 0;
    enum tern_status has_arch = tern_gguf_string(g, "general.architecture", &arch, NULL);

    if (t->type != TERN_TYPE_TL2)
        return false;
    if (t->ne[2] != 1 || t->ne[3] != 1)
        return true;
    if (arch.len >= 6 && memcmp(arch.ptr, "bitnet", 6) == 0)
        return false;
    if (tern_gguf_u64(g, "general.file_type", &file_type, NULL) == TERN_OK)
        return file_type != FILE_TYPE_TL2;
    return has_arch == TERN_OK && !tern_str_is(arch, "llama");
}
