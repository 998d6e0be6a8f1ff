/* SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/commands.h"

#include "coordinator/interrupt.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>

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

enum tern_status cmd_flush(struct tern_err *err)
{
    if ((fflush(stdout) != 0 || ferror(stdout)) && errno != EPIPE)
        return TERN_FAIL_SYS(err, TERN_ERR_IO, errno, "cannot write to stdout: %s", strerror(errno));
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
