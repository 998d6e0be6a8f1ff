/* SPDX-License-Identifier: Apache-2.0 */
/* Values of options and their defaults: see option.h. */
#include "engine/option.h"

#include <errno.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Digits at the front of text; false when there are none or they are too many. */
static bool digits(const char *text, uint64_t *v, char **end)
{
    errno = 0;
    *v = strtoull(text, end, 10);
    return text[0] >= '0' && text[0] <= '9' && errno == 0;
}

enum tern_status tern_option_u64(const char *option, const char *text, uint64_t min, uint64_t max,
                                 uint64_t *out, struct tern_err *err)
{
    char *end;
    uint64_t v;

    if (!digits(text, &v, &end) || *end != '\0' || v < min || v > max)
        return TERN_FAIL(err, TERN_ERR_USAGE, "%s: '%s' is not a whole number from %llu to %llu", option,
                         text, (unsigned long long)min, (unsigned long long)max);
    *out = v;
    return TERN_OK;
}

enum tern_status tern_option_u32(const char *option, const char *text, uint32_t min, uint32_t max,
                                 uint32_t *out, struct tern_err *err)
{
    uint64_t v;
    enum tern_status st = tern_option_u64(option, text, min, max, &v, err);

    if (!st)
        *out = (uint32_t)v;
    return st;
}

enum tern_status tern_option_bytes(const char *option, const char *text, uint64_t *out, struct tern_err *err)
{
    static const char units[] = "KMGT";
    char *end;
    uint64_t v;
    unsigned shift = 0;
    bool good = digits(text, &v, &end);

    if (good && *end != '\0') {
        const char *u = strchr(units, *end & ~0x20);

        if (u && *u) {
            shift = 10 * (unsigned)(u - units + 1);
            end++;
            end += *end == 'i';
            end += *end == 'B';
        }
    }
    if (!good || *end != '\0' || v == 0 || v > (UINT64_MAX >> 1) >> shift)
        return TERN_FAIL(err, TERN_ERR_USAGE, "%s: '%s' is not a size such as 500M, 2G or 1073741824", option,
                         text);
    *out = v << shift;
    return TERN_OK;
}

enum tern_status tern_option_cpu(const char *text, enum tern_cpu_level *out, struct tern_err *err)
{
    enum tern_cpu_level level;

    if (!tern_cpu_by_name(text, &level))
        return TERN_FAIL(err, TERN_ERR_USAGE,
                         "--cpu: '%s' is not one of ref, avx2, avxvnni, avx512, "
                         "avx512vbmi, neon, dotprod, i8mm",
                         text);
    if (!tern_cpu_supports(level))
        return TERN_FAIL(err, TERN_ERR_USAGE, "--cpu: this machine cannot run %s; its best level is %s", text,
                         tern_cpu_name(tern_cpu_detect()));
    *out = level;
    return TERN_OK;
}

enum tern_status tern_option_i2s(const char *text, enum tern_i2s_layout *out, struct tern_err *err)
{
    static const enum tern_i2s_layout by_letter[] = { TERN_I2S_A, TERN_I2S_B, TERN_I2S_C };
    int i = (text[0] & ~0x20) - 'A';

    if (i < 0 || i > 2 || text[1] != '\0')
        return TERN_FAIL(err, TERN_ERR_USAGE, "--i2s-layout: '%s' is not A, B or C", text);
    *out = by_letter[i];
    return TERN_OK;
}

enum tern_status tern_option_layout(const char *text, enum tern_layout_wish *out, struct tern_err *err)
{
    if (strcmp(text, "auto") == 0)
        *out = TERN_LAYOUT_AUTO;
    else if (strcmp(text, tern_pack_layout_name(TERN_TILES_2BIT)) == 0)
        *out = TERN_LAYOUT_2BIT;
    else if (strcmp(text, tern_pack_layout_name(TERN_TILES_5TRIT)) == 0)
        *out = TERN_LAYOUT_5TRIT;
    else
        return TERN_FAIL(err, TERN_ERR_USAGE, "--layout: '%s' is not auto, 2bit or 1.6bit", text);
    return TERN_OK;
}

enum tern_status tern_option_layers(const char *text, const char *whose, uint32_t n_layers, uint32_t *first,
                                    uint32_t *last, struct tern_err *err)
{
    uint64_t a, b;
    char *end;
    bool good = digits(text, &a, &end);

    b = a;
    if (good && *end == '-')
        good = digits(end + 1, &b, &end);
    if (!good || *end)
        return TERN_FAIL(err, TERN_ERR_USAGE, "--layers: '%s' is not a range of layers such as 0-14", text);
    if (a > b || b >= n_layers)
        return TERN_FAIL(err, TERN_ERR_USAGE,
                         "--layers: %s has layers 0 to %u, and the first comes first: not '%s'", whose,
                         (unsigned)n_layers - 1, text);
    *first = (uint32_t)a;
    *last = (uint32_t)b + 1;
    return TERN_OK;
}

enum tern_status tern_option_kv(const char *text, enum tern_kv_type *out, struct tern_err *err)
{
    if (tern_kv_type_by_name(text, out))
        return TERN_OK;
    return TERN_FAIL(err, TERN_ERR_USAGE, "--kv: '%s' is not f16 or int8", text);
}

enum tern_status tern_option_default_model(const char *option, char *path, size_t cap, struct tern_err *err)
{
    /* Installed: bin/ beside share/.  Source tree: build/PRESET/bin/. */
    static const char *const places[] = { "../share/tern/models/fable.gguf",
                                          "../../../deploy/models/fable.gguf" };
    const char *env = getenv("TERN_MODEL");
    char exe[4096];
    ssize_t n;
    char *slash;

    if (env && *env) {
        if ((size_t)snprintf(path, cap, "%s", env) >= cap)
            return TERN_FAIL(err, TERN_ERR_LIMIT, "the path in TERN_MODEL is too long");
        return TERN_OK;
    }
    n = readlink("/proc/self/exe", exe, sizeof exe - 1);
    if (n > 0) {
        exe[n] = '\0';
        slash = strrchr(exe, '/');
        if (slash)
            *slash = '\0';
        for (size_t i = 0; i < sizeof places / sizeof places[0]; i++) {
            struct stat sb;

            if ((size_t)snprintf(path, cap, "%s/%s", exe, places[i]) < cap && stat(path, &sb) == 0)
                return TERN_OK;
        }
    }
    return TERN_FAIL(
        err, TERN_ERR_USAGE,
        "no model was given and the fable model is not beside the program; name one with %s FILE", option);
}

unsigned tern_option_default_threads(void)
{
    cpu_set_t set;
    int n = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;

    return n < 1 ? 1 : n > TERN_MAX_THREADS ? TERN_MAX_THREADS : (unsigned)n;
}
