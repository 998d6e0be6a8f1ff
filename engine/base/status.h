/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How everything in Tern reports that something went wrong.
 *
 * A function that can fail returns enum tern_status and takes `struct tern_err *err` last (NULL if the
 * caller does not care).  The error is filled where it is found, with one sentence that says what, where
 * and what to do; those who pass it on add nothing and log nothing; whoever decides what to do logs it once.
 * On failure every output is untouched.
 */
#ifndef TERN_ENGINE_BASE_STATUS_H
#define TERN_ENGINE_BASE_STATUS_H

#include <stdarg.h>
#include <stddef.h>

enum tern_status {
    TERN_OK = 0,

    /* Not failures: nothing is broken, nothing needs undoing. */
    TERN_AGAIN = 1, /* not enough input or room yet; call again later */
    TERN_END = 2,   /* there is no more */

    /* Failures, named by what has to be done about them. */
    TERN_ERR_USAGE = 16,  /* the caller asked for nonsense: tell the caller */
    TERN_ERR_FORMAT,      /* bytes from outside are malformed: refuse them */
    TERN_ERR_UNSUPPORTED, /* well formed, but not something this build does */
    TERN_ERR_LIMIT,       /* well formed, but larger than we allow */
    TERN_ERR_AUTH,        /* the peer is not on the list: drop it */
    TERN_ERR_STATE,       /* a legal message at an illegal time: drop the peer */
    TERN_ERR_PEER,        /* the peer is gone or silent */
    TERN_ERR_BUSY,        /* somebody else holds it: try again later */
    TERN_ERR_IO,          /* the system refused; sys_errno says why */
    TERN_ERR_MEMORY,      /* no memory: refuse the work, keep serving */
    TERN_ERR_NUMERIC      /* a row is not finite: fail its sequence */
};

#define TERN_ERR_TEXT_BYTES 400

struct tern_err {
    enum tern_status status;
    int sys_errno; /* errno at the failure, or 0 */
    int line;
    const char *file;               /* where it was found, not where it was reported */
    char text[TERN_ERR_TEXT_BYTES]; /* one sentence for a person, no newline */
};

#define TERN_MUST_CHECK        __attribute__((warn_unused_result))
#define TERN_PRINTF(fmt, args) __attribute__((format(printf, fmt, args)))

/* Fills err (may be NULL) and returns status.  Control characters and invalid bytes in the result are
 * replaced by '?', so that hostile text can be quoted in a sentence. */
enum tern_status tern_err_set(struct tern_err *err, enum tern_status status, int sys_errno, const char *file,
                              int line, const char *fmt, ...) TERN_PRINTF(6, 7);

#define TERN_FAIL(err, status, ...) tern_err_set((err), (status), 0, __FILE__, __LINE__, __VA_ARGS__)
#define TERN_FAIL_SYS(err, status, no, ...)                                                                  \
    tern_err_set((err), (status), (no), __FILE__, __LINE__, __VA_ARGS__)

/* "format", "limit", ... for logs and JSON. */
const char *tern_status_name(enum tern_status status);

/* Exit code by sysexits.h for a command that ends with this status (0 for TERN_OK). */
int tern_status_exit_code(enum tern_status status);

/* A broken invariant of our own: prints file, line and condition, and aborts.  Bytes from a file, a peer or
 * a user must never reach it. */
void tern_bug(const char *file, int line, const char *what) __attribute__((noreturn));
#define TERN_BUG_IF(cond)                                                                                    \
    do {                                                                                                     \
        if (cond)                                                                                            \
            tern_bug(__FILE__, __LINE__, #cond);                                                             \
    } while (0)

#endif
