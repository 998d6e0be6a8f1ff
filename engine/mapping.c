/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Mapping files, and the SIGBUS guard.
 *
 * The guard's table has a fixed number of slots of lock-free atomics, so that the handler may read it at any
 * moment on any thread.  In the handler only the system call mmap is made, and past the C library, where
 * sanitizers would have their own idea of what a handler may do.
 */
#include "engine/mapping.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define N_SLOTS 64

/* begin is 0 while the slot is free or being filled; the handler looks at nothing else before it has seen
 * begin. */
static struct slot {
    atomic_bool taken;
    _Atomic(uintptr_t) begin, end;
    atomic_bool damaged;
} slots[N_SLOTS];

static struct sigaction old_action;
static uintptr_t page_mask;

/* Puts zero pages from the one that faulted to the end of its mapping: what follows a lost page of a
 * truncated file is lost too, and one fault is cheaper than thousands. */
static bool patch(uintptr_t addr)
{
    for (size_t i = 0; i < N_SLOTS; i++) {
        uintptr_t begin = atomic_load(&slots[i].begin), end = atomic_load(&slots[i].end);
        void *page = (void *)(addr & ~page_mask);

        if (begin == 0 || addr < begin || addr >= end)
            continue;
        atomic_store(&slots[i].damaged, true);
        return syscall(SYS_mmap, page, end - (uintptr_t)page, PROT_READ,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1, 0) != -1;
    }
    return false;
}

static void on_sigbus(int sig, siginfo_t *info, void *context)
{
    int saved = errno;

    (void)context;
    /* si_code is positive when the kernel found the fault; kill(2) and raise(3) give 0 or less. */
    if (info->si_code <= 0 || !patch((uintptr_t)info->si_addr)) {
        (void)sigaction(SIGBUS, &old_action, NULL);
        (void)raise(sig); /* blocked until we return; a real fault comes again by itself */
    }
    errno = saved;
}

enum tern_status tern_mapping_guard_install(struct tern_err *err)
{
    struct sigaction sa;

    page_mask = (uintptr_t)sysconf(_SC_PAGESIZE) - 1;
    memset(&sa, 0, sizeof sa);
    sa.sa_sigaction = on_sigbus;
    sa.sa_flags = SA_SIGINFO | SA_ONSTACK;
    sigemptyset(&sa.sa_mask);
    if (sigaction(SIGBUS, NULL, &old_action) != 0 ||
        ((old_action.sa_flags & SA_SIGINFO) && old_action.sa_sigaction == on_sigbus))
        return TERN_OK;
    if (sigaction(SIGBUS, &sa, NULL) != 0)
        return TERN_FAIL_SYS(err, TERN_ERR_IO, errno, "cannot install the handler for lost file pages: %s",
                             strerror(errno));
    return TERN_OK;
}

static int take_slot(const void *bytes, size_t size)
{
    for (int i = 0; i < N_SLOTS; i++) {
        bool free_slot = false;

        if (!atomic_compare_exchange_strong(&slots[i].taken, &free_slot, true))
            continue;
        atomic_store(&slots[i].damaged, false);
        atomic_store(&slots[i].end, (uintptr_t)bytes + size);
        atomic_store(&slots[i].begin, (uintptr_t)bytes);
        return i;
    }
    return -1;
}

static uint64_t mtime_ns(const struct stat *sb)
{
    return (uint64_t)sb->st_mtim.tv_sec * 1000000000u + (uint64_t)sb->st_mtim.tv_nsec;
}

/* Fills size and identity from an open file, or says why it is nothing to map. */
static enum tern_status look_at(struct tern_mapping *m, struct tern_err *err)
{
    struct stat sb;

    if (fstat(m->fd, &sb) != 0)
        return TERN_FAIL_SYS(err, TERN_ERR_IO, errno, "cannot read '%s': %s", m->path, strerror(errno));
    if (S_ISDIR(sb.st_mode))
        return TERN_FAIL(err, TERN_ERR_USAGE, "'%s' is a directory; name a file in it", m->path);
    if (!S_ISREG(sb.st_mode))
        return TERN_FAIL(err, TERN_ERR_USAGE,
                         "'%s' is not a regular file, so it cannot be mapped; copy it to one", m->path);
    if (sb.st_size == 0)
        return TERN_FAIL(err, TERN_ERR_FORMAT, "'%s' is empty; get a whole copy of it", m->path);
    m->size = (size_t)sb.st_size;
    m->dev = (uint64_t)sb.st_dev;
    m->ino = (uint64_t)sb.st_ino;
    m->mtime_ns = mtime_ns(&sb);
    m->ctime_ns = (uint64_t)sb.st_ctim.tv_sec * 1000000000u + (uint64_t)sb.st_ctim.tv_nsec;
    return TERN_OK;
}

enum tern_status tern_mapping_open(const char *path, struct tern_mapping *out, struct tern_err *err)
{
    struct tern_mapping m = { .slot = -1 };
    size_t n = strlen(path);
    enum tern_status st;
    void *p;

    if (n < sizeof m.path)
        memcpy(m.path, path, n + 1);
    else
        snprintf(m.path, sizeof m.path, "...%s", path + n - (sizeof m.path - 4));
    /* O_NONBLOCK: opening a pipe that nobody writes to must not hang; it means nothing for regular files. */
    m.fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (m.fd < 0)
        return TERN_FAIL_SYS(err, TERN_ERR_IO, errno, "cannot open '%s': %s", m.path, strerror(errno));
    st = look_at(&m, err);
    if (st)
        goto fail;
    p = mmap(NULL, m.size, PROT_READ, MAP_PRIVATE, m.fd, 0);
    if (p == MAP_FAILED) {
        st = TERN_FAIL_SYS(err, TERN_ERR_IO, errno, "cannot map '%s': %s", m.path, strerror(errno));
        goto fail;
    }
    m.bytes = p;
    m.slot = take_slot(p, m.size);
    *out = m;
    return TERN_OK;
fail:
    close(m.fd);
    return st;
}

void tern_mapping_close(struct tern_mapping *m)
{
    if (!m->bytes)
        return;
    if (m->slot >= 0) {
        atomic_store(&slots[m->slot].begin, 0);
        atomic_store(&slots[m->slot].taken, false);
    }
    munmap((void *)(uintptr_t)m->bytes, m->size);
    close(m->fd);
    memset(m, 0, sizeof *m);
    m->fd = m->slot = -1;
}

enum tern_status tern_mapping_check(const struct tern_mapping *m, struct tern_err *err)
{
    struct stat sb;

    if (m->slot >= 0 && atomic_load(&slots[m->slot].damaged))
        return TERN_FAIL(err, TERN_ERR_IO,
                         "'%s' was truncated or became unreadable while in use; restore it and start again",
                         m->path);
    if (fstat(m->fd, &sb) != 0)
        return TERN_FAIL_SYS(err, TERN_ERR_IO, errno, "cannot look at '%s': %s", m->path, strerror(errno));
    if ((uint64_t)sb.st_size < m->size)
        return TERN_FAIL(err, TERN_ERR_IO,
                         "'%s' was truncated from %zu to %lld bytes while in use; restore it and start again",
                         m->path, m->size, (long long)sb.st_size);
    if (mtime_ns(&sb) != m->mtime_ns)
        return TERN_FAIL(err, TERN_ERR_IO,
                         "'%s' was written to while in use, so it may not be the model it was; start again",
                         m->path);
    return TERN_OK;
}

void tern_mapping_release(const struct tern_mapping *m, size_t offset, size_t n)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE), first, last;

    if (!m->bytes || offset > m->size || n > m->size - offset)
        return;
    first = (offset + page - 1) & ~(page - 1);
    last = (offset + n) & ~(page - 1);
    if (first < last)
        (void)madvise((void *)(uintptr_t)(m->bytes + first), last - first, MADV_DONTNEED);
}
