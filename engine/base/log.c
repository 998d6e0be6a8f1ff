/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/base/log.h"

#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static enum tern_log_level max_level = TERN_LOG_INFO;

static const char *const level_names[] = { "error", "warn", "info", "debug" };

void tern_log_set_level(enum tern_log_level level)
{
    max_level = level;
}

void tern_log(enum tern_log_level level, const char *event, const char *fmt, ...)
{
    struct pollfd ready = { .fd = STDERR_FILENO, .events = POLLOUT };
    char line[1024];
    va_list ap;
    int n, m;
    size_t len;

    if (level > max_level)
        return;
    n = snprintf(line, sizeof line - 1, "%s %s ", level_names[level], event);
    if (n < 0)
        return;
    va_start(ap, fmt);
    m = vsnprintf(line + n, sizeof line - 1 - (size_t)n, fmt, ap);
    va_end(ap);
    if (m < 0)
        return;
    for (unsigned char *p = (unsigned char *)line; *p; p++)
        if (*p < 0x20 || *p == 0x7f)
            *p = '?';
    len = strlen(line);
    line[len++] = '\n';
    /* A lost log line is not worth an error path; a full pipe whose reader sleeps must not stop a daemon.
     * One that polls as writable has room for PIPE_BUF bytes, more than a line. */
    if (poll(&ready, 1, 0) != 1 || !(ready.revents & POLLOUT) || write(STDERR_FILENO, line, len) < 0)
        return;
}

void tern_log_err(const char *event, const struct tern_err *err)
{
    tern_log(TERN_LOG_ERROR, event, "status=%s %s", tern_status_name(err->status), err->text);
}

bool tern_log_limit(struct tern_log_limit *l, uint64_t now_ms, uint64_t every_ms, uint64_t *n_held)
{
    if (l->seen && now_ms - l->last_ms < every_ms) {
        l->held++;
        return false;
    }
    *n_held = l->held;
    l->held = 0;
    l->seen = true;
    l->last_ms = now_ms;
    return true;
}

uint64_t tern_now_ns(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

uint64_t tern_now_ms(void)
{
    return tern_now_ns() / 1000000u;
}

struct timespec tern_deadline_in(int ms)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    ts.tv_sec += ms / 1000;
    ts.tv_nsec += (long)(ms % 1000) * 1000000;
    if (ts.tv_nsec >= 1000000000) {
        ts.tv_sec++;
        ts.tv_nsec -= 1000000000;
    }
    return ts;
}
