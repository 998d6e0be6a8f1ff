/* SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/commands.h"

#include "coordinator/interrupt.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sysexits.h>
#include <unistd.h>

int cmd_fail(const char *command, const struct tern_err *err)
{
    fprintf(stderr, "tern %s: %s\n", command, err->text);
    return tern_status_exit_code(err->status);
}

int cmd_fail_or_end(const char *command, const struct tern_err *err)
{
    int sig = interrupt_signal(), code = err->status == TERN_END ? EX_OK : cmd_fail(command, err);

    return sig ? 128 + sig : code;
}

enum tern_status cmd_default_model(char *path, size_t cap, struct tern_err *err)
{
    /* Installed: bin/tern beside share/.  Source tree: build/PRESET/bin/tern. */
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
        "no model was given and the fable model is not beside the program; name one with -m FILE");
}

enum tern_status cmd_parse_u64(const char *option, const char *text, unsigned long long min,
                               unsigned long long max, unsigned long long *out, struct tern_err *err)
{
    char *end;
    unsigned long long v;

    errno = 0;
    v = strtoull(text, &end, 10);
    if (text[0] < '0' || text[0] > '9' || *end != '\0' || errno != 0 || v < min || v > max)
        return TERN_FAIL(err, TERN_ERR_USAGE, "%s: '%s' is not a whole number from %llu to %llu", option,
                         text, min, max);
    *out = v;
    return TERN_OK;
}

enum tern_status cmd_parse_f64(const char *option, const char *text, double min, double max, double *out,
                               struct tern_err *err)
{
    char *end;
    double v;

    errno = 0;
    v = strtod(text, &end);
    if (end == text || *end != '\0' || !isfinite(v) || v < min || v > max)
        return TERN_FAIL(err, TERN_ERR_USAGE, "%s: '%s' is not a number from %g to %g", option, text, min,
                         max);
    *out = v;
    return TERN_OK;
}

enum tern_status cmd_parse_bytes(const char *option, const char *text, unsigned long long *out,
                                 struct tern_err *err)
{
    static const char units[] = "KMGT";
    char *end;
    unsigned long long v;
    unsigned shift = 0;

    errno = 0;
    v = strtoull(text, &end, 10);
    if (text[0] >= '0' && text[0] <= '9' && errno == 0 && *end != '\0') {
        const char *u = strchr(units, *end & ~0x20);

        if (u && *u) {
            shift = 10 * (unsigned)(u - units + 1);
            end++;
            if (*end == 'i')
                end++;
            if (*end == 'B')
                end++;
        }
    }
    if (text[0] < '0' || text[0] > '9' || errno != 0 || *end != '\0' || v > (~0ull >> 1) >> shift)
        return TERN_FAIL(err, TERN_ERR_USAGE, "%s: '%s' is not a size such as 500M, 2G or 1073741824", option,
                         text);
    *out = v << shift;
    return TERN_OK;
}

enum tern_status cmd_read_file(const char *path, size_t max, char **out, size_t *len, struct tern_err *err)
{
    FILE *f = strcmp(path, "-") == 0 ? stdin : fopen(path, "rb");
    char *buf = NULL;
    size_t n = 0, cap = 0;
    enum tern_status st = TERN_OK;

    if (!f)
        return TERN_FAIL_SYS(err, TERN_ERR_IO, errno, "cannot read '%s': %s", path, strerror(errno));
    for (;;) {
        size_t got;

        if (n + 1 >= cap) {
            char *bigger;

            cap = cap ? cap * 2 : 65536;
            bigger = realloc(buf, cap);
            if (!bigger) {
                st = TERN_FAIL(err, TERN_ERR_MEMORY, "no memory to read '%s'", path);
                break;
            }
            buf = bigger;
        }
        got = fread(buf + n, 1, cap - n - 1, f);
        n += got;
        if (n > max) {
            st = TERN_FAIL(err, TERN_ERR_LIMIT, "'%s' is larger than %zu bytes", path, max);
            break;
        }
        if (got == 0) {
            if (ferror(f))
                st = TERN_FAIL_SYS(err, TERN_ERR_IO, errno, "cannot read '%s': %s", path, strerror(errno));
            break;
        }
    }
    if (f != stdin)
        fclose(f);
    if (st) {
        free(buf);
        return st;
    }
    buf[n] = '\0';
    *out = buf;
    *len = n;
    return TERN_OK;
}
