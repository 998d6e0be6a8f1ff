/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Runs a corpus through a fuzz target without a fuzzer: replay FILE|DIRECTORY...
 *
 * So every input a fuzzer ever found interesting is a test of every preset.  Each input lies in a heap block
 * of exactly its size, so that AddressSanitizer sees a read past its end.  Files of a directory run in order
 * of their names; --verbose prints each name first, to find the one that crashes.  A corpus without a single
 * input is an error.
 */
#include "fuzz/fuzz.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdbool.h>
#include <string.h>
#include <sys/stat.h>

static size_t n_inputs;
static bool verbose;

static int run_bytes(const char *path, FILE *f, size_t size)
{
    uint8_t *bytes = malloc(size);

    if ((!bytes && size) || fread(bytes, 1, size, f) != size) {
        fprintf(stderr, "replay: cannot read %s\n", path);
        free(bytes);
        return 1;
    }
    if (verbose)
        fprintf(stderr, "%s\n", path);
    LLVMFuzzerTestOneInput(bytes, size);
    free(bytes);
    n_inputs++;
    return 0;
}

static int run_file(const char *path)
{
    struct stat sb;
    FILE *f = fopen(path, "rb");
    int rc;

    if (!f || fstat(fileno(f), &sb) != 0 || !S_ISREG(sb.st_mode)) {
        fprintf(stderr, "replay: cannot read %s: %s\n", path, f ? "not a file" : strerror(errno));
        if (f)
            fclose(f);
        return 1;
    }
    rc = run_bytes(path, f, (size_t)sb.st_size);
    fclose(f);
    return rc;
}

static int not_hidden(const struct dirent *e)
{
    return e->d_name[0] != '.';
}

static int run_directory(const char *path)
{
    struct dirent **names;
    int n = scandir(path, &names, not_hidden, alphasort), rc = 0;

    if (n < 0) {
        fprintf(stderr, "replay: cannot read %s: %s\n", path, strerror(errno));
        return 1;
    }
    for (int i = 0; i < n; i++) {
        char file[PATH_MAX];

        if (snprintf(file, sizeof file, "%s/%s", path, names[i]->d_name) >= (int)sizeof file)
            rc = 1;
        else
            rc |= run_file(file);
        free(names[i]);
    }
    free(names);
    return rc;
}

int main(int argc, char **argv)
{
    int rc = 0;

    for (int i = 1; i < argc; i++) {
        struct stat sb;

        if (strcmp(argv[i], "--verbose") == 0)
            verbose = true;
        else if (stat(argv[i], &sb) == 0 && S_ISDIR(sb.st_mode))
            rc |= run_directory(argv[i]);
        else
            rc |= run_file(argv[i]);
    }
    if (n_inputs == 0) {
        fprintf(stderr, "replay: no inputs; usage: replay [--verbose] FILE|DIRECTORY...\n");
        return 2;
    }
    printf("%zu inputs replayed\n", n_inputs);
    return rc;
}
