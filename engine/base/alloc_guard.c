/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The linker sends every malloc, calloc, realloc, posix_memalign and aligned_alloc of Tern's own objects
 * here (--wrap; see CMakeLists.txt).  Inside a guard (engine/base/mem.h) an allocation is a bug; shared
 * libraries such as libzmq are not wrapped.  Linked into programs of the dev and tsan presets only.
 */
#include "engine/base/mem.h"

#include <stdio.h>
#include <stdlib.h>

void *__real_malloc(size_t n);
void *__real_calloc(size_t n, size_t size);
void *__real_realloc(void *p, size_t n);
void *__real_aligned_alloc(size_t align, size_t n);
int __real_posix_memalign(void **out, size_t align, size_t n);

void *__wrap_malloc(size_t n);
void *__wrap_calloc(size_t n, size_t size);
void *__wrap_realloc(void *p, size_t n);
void *__wrap_aligned_alloc(size_t align, size_t n);
int __wrap_posix_memalign(void **out, size_t align, size_t n);

static void check(const char *fn, size_t n)
{
    const char *name = tern_alloc_guard_name();

    if (name) {
        fprintf(stderr, "tern: %s of %zu bytes inside the allocation guard '%s'\n", fn, n, name);
        abort();
    }
}

void *__wrap_malloc(size_t n)
{
    check("malloc", n);
    return __real_malloc(n);
}

void *__wrap_calloc(size_t n, size_t size)
{
    check("calloc", n * size);
    return __real_calloc(n, size);
}

void *__wrap_realloc(void *p, size_t n)
{
    check("realloc", n);
    return __real_realloc(p, n);
}

void *__wrap_aligned_alloc(size_t align, size_t n)
{
    check("aligned_alloc", n);
    return __real_aligned_alloc(align, n);
}

int __wrap_posix_memalign(void **out, size_t align, size_t n)
{
    check("posix_memalign", n);
    return __real_posix_memalign(out, align, n);
}
