/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Split model files: up to four parts in a folder, any of which may be damaged, missing, or of another model.
 *
 * Input: how many parts, then for each its length in two bytes and its bytes, as far as they go.
 *
 * Properties: what opens has the tensors of all parts, each inside the mapping it names, under names that are
 * unique and found; every refusal has a sentence; nothing stays open.
 */
#include "fuzz/fuzz.h"

#include "engine/base/limits.h"
#include "engine/model_file.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MAX_PARTS 4

static char folder[64];

static void remove_folder(void)
{
    rmdir(folder);
}

static void part_path(unsigned no, unsigned count, char path[128])
{
    snprintf(path, 128, "%s/m-%05u-of-%05u.gguf", folder, no + 1, count);
}

static void write_part(const char *path, const uint8_t *bytes, size_t n)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

    FUZZ_CHECK(fd >= 0 && write(fd, bytes, n) == (ssize_t)n);
    close(fd);
}

static size_t open_files(void)
{
    size_t n = 0;
    DIR *d = opendir("/proc/self/fd");

    while (d && readdir(d))
        n++;
    if (d)
        closedir(d);
    return n;
}

static void check_joined(const struct tern_gguf *g)
{
    FUZZ_CHECK(g->n_maps >= 1 && g->n_maps <= MAX_PARTS && g->n_tensors <= TERN_MAX_TENSORS);
    for (size_t i = 0; i < g->n_tensors; i++) {
        const struct tern_tensor *t = &g->tensors[i];
        const struct tern_mapping *m = &g->maps[t->map];
        char name[TERN_MAX_TENSOR_NAME + 1];

        FUZZ_CHECK(t->map < g->n_maps && t->data >= m->bytes && t->bytes <= m->size &&
                   (size_t)(t->data - m->bytes) <= m->size - t->bytes);
        FUZZ_CHECK((const uint8_t *)t->name.ptr > m->bytes && (const uint8_t *)t->name.ptr < t->data);
        FUZZ_CHECK(!tern_gguf_is_mxfp4(g, t));
        tern_gguf_release(g, t);
        memcpy(name, t->name.ptr, t->name.len);
        name[t->name.len] = '\0';
        FUZZ_CHECK(memchr(t->name.ptr, 0, t->name.len) || tern_gguf_tensor(g, name) == t);
    }
}

static void run(unsigned count)
{
    struct tern_gguf *g = NULL;
    struct tern_err err;
    char path[128];
    size_t before = open_files();
    enum tern_status st;

    part_path(0, count, path);
    st = tern_model_file_open(path, NULL, &g, &err);
    if (st) {
        FUZZ_CHECK(st >= TERN_ERR_USAGE && err.status == st && err.text[0] && !strchr(err.text, '\n') && !g);
    } else {
        check_joined(g);
        FUZZ_CHECK(tern_gguf_check(g, &err) == TERN_OK);
        tern_gguf_close(&g);
    }
    FUZZ_CHECK(open_files() == before);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const uint8_t *at, *end;
    unsigned count, written = 0;
    char path[128];

    if (size == 0)
        return 0;
    if (!folder[0]) {
        strcpy(folder, "/tmp/tern_fuzz_XXXXXX");
        FUZZ_CHECK(mkdtemp(folder) != NULL);
        atexit(remove_folder);
    }
    at = data + 1;
    end = data + size;
    count = data[0] % MAX_PARTS + 1;
    while (written < count && end - at >= 2) {
        size_t n = at[0] | (size_t)at[1] << 8;

        at += 2;
        n = n < (size_t)(end - at) ? n : (size_t)(end - at);
        part_path(written++, count, path);
        write_part(path, at, n);
        at += n;
    }
    run(count);
    while (written > 0) {
        part_path(--written, count, path);
        unlink(path);
    }
    return 0;
}
