/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/base/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define HUGE_PAGE ((size_t)2 << 20)

enum tern_status tern_block_new(size_t n, const char *what, void **out, struct tern_err *err)
{
    void *p;

    if (n == 0) {
        *out = NULL;
        return TERN_OK;
    }
    p = mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED)
        return TERN_FAIL_SYS(err, TERN_ERR_MEMORY, errno,
                             "no memory for %s (%zu bytes): %s; use a smaller context, fewer layers "
                             "here or more machines",
                             what, n, strerror(errno));
    /* Advice only: on a machine without transparent huge pages nothing is lost. */
    if (n >= 4 * HUGE_PAGE)
        (void)madvise(p, n, MADV_HUGEPAGE);
    *out = p;
    return TERN_OK;
}

void tern_block_free(void **block, size_t n)
{
    if (*block)
        munmap(*block, n);
    *block = NULL;
}

size_t tern_memory_resident(void)
{
    char text[128];
    unsigned long all, resident;
    int fd = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof text - 1);

    if (fd >= 0)
        close(fd);
    if (n <= 0)
        return 0;
    text[n] = '\0';
    /* Pages: all of the address space, those resident, and more. */
    return sscanf(text, "%lu %lu", &all, &resident) == 2 ? resident * (size_t)sysconf(_SC_PAGESIZE) : 0;
}

enum tern_status tern_arena_init(struct tern_arena *a, size_t size, const char *what, struct tern_err *err)
{
    void *p;
    enum tern_status st = tern_block_new(size, what, &p, err);

    if (st)
        return st;
    a->base = p;
    a->size = size;
    a->used = 0;
    return TERN_OK;
}

void tern_arena_fini(struct tern_arena *a)
{
    void *p = a->base;

    tern_block_free(&p, a->size);
    memset(a, 0, sizeof *a);
}

void *tern_arena_alloc(struct tern_arena *a, size_t n)
{
    size_t at = tern_round_up(a->used, 64);

    if (at > a->size || n > a->size - at)
        return NULL;
    a->used = at + n;
    return a->base + at;
}

static _Thread_local const char *guard_name;
static _Thread_local unsigned guard_depth;

void tern_alloc_guard_begin(const char *what)
{
    if (guard_depth++ == 0)
        guard_name = what;
}

void tern_alloc_guard_end(void)
{
    if (--guard_depth == 0)
        guard_name = NULL;
}

const char *tern_alloc_guard_name(void)
{
    return guard_name;
}
