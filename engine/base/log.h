/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One line per event on stderr: `level event key=value ...`.  systemd and containers stamp the time.
 *
 * Levels by frequency: error (someone must act), warn (we acted), info (once per peer, model or sequence),
 * debug (once per step).  Never logged: keys, prompts, generated text.  Safe from any thread; a line is one
 * write.
 */
#ifndef TERN_ENGINE_BASE_LOG_H
#define TERN_ENGINE_BASE_LOG_H

#include "engine/base/status.h"

#include <stdbool.h>
#include <stdint.h>
#include <time.h>

enum tern_log_level { TERN_LOG_ERROR, TERN_LOG_WARN, TERN_LOG_INFO, TERN_LOG_DEBUG };

/* Lines above this level are dropped; INFO at start.  Set once, before threads. */
void tern_log_set_level(enum tern_log_level level);

/* `event` is a short fixed word; the rest is formatted.  Control characters are replaced by '?'. */
void tern_log(enum tern_log_level level, const char *event, const char *fmt, ...) TERN_PRINTF(3, 4);

/* Logs err->text under `event` with err's status. */
void tern_log_err(const char *event, const struct tern_err *err);

/*
 * "Once, then counted": returns true the first time and then once per `every_ms`; *n_held gets how many
 * calls were held back since the last true.  One thread per limiter.
 */
struct tern_log_limit {
    uint64_t last_ms;
    uint64_t held;
    bool seen;
};
bool tern_log_limit(struct tern_log_limit *l, uint64_t now_ms, uint64_t every_ms, uint64_t *n_held);

/* Milliseconds and nanoseconds of CLOCK_MONOTONIC. */
uint64_t tern_now_ms(void);
uint64_t tern_now_ns(void);
/* When so many milliseconds, at least 0, will have gone by: for pthread_cond_timedwait on that clock. */
struct timespec tern_deadline_in(int ms);

#endif
