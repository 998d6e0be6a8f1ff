/* SPDX-License-Identifier: Apache-2.0 */
/* See delay_shape.h. */
#include "lab/delay_shape.h"

#include <stdlib.h>
#include <string.h>

/* A number of at most `most`, then `end` or the end of the text. */
static bool number(const char **at, const char *ends, double most, double *out)
{
    char *end;

    *out = strtod(*at, &end);
    if (end == *at || !(*out >= 0 && *out <= most) || !strchr(ends, *end))
        return false;
    *at = end;
    return true;
}

bool delay_spec_parse(const char *text, struct delay_spec *spec)
{
    struct delay_spec s = *spec;
    double v, w;

    for (const char *p = text;; p++) {
        if (strncmp(p, "delay=", 6) == 0 && (p += 6, number(&p, ",", 60000, &v)))
            s.delay_ns = (uint64_t)(v * 1e6);
        else if (strncmp(p, "jitter=", 7) == 0 && (p += 7, number(&p, ",", 60000, &v)))
            s.jitter_ns = (uint64_t)(v * 1e6);
        else if (strncmp(p, "rate=", 5) == 0 && (p += 5, number(&p, ",", 1e12, &v)))
            s.rate = (uint64_t)v;
        else if (strncmp(p, "stall=", 6) == 0 && (p += 6, number(&p, "/", 3600, &v)) && *p == '/' &&
                 (p++, number(&p, ",", 60000, &w)) && (v * 1000 > w || w == 0)) {
            s.stall_every_ns = (uint64_t)(v * 1e9);
            s.stall_ns = (uint64_t)(w * 1e6);
        } else {
            return false;
        }
        if (*p == '\0')
            break;
    }
    *spec = s;
    return true;
}

void delay_shape_init(struct delay_shape *s, const struct delay_spec *spec, uint64_t seed, uint64_t now_ns)
{
    memset(s, 0, sizeof *s);
    s->spec = *spec;
    s->random = seed;
    s->start_ns = s->free_ns = now_ns;
}

/* splitmix64 */
static uint64_t draw(struct delay_shape *s)
{
    uint64_t z = s->random += 0x9e3779b97f4a7c15u;

    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

uint64_t delay_shape_due(struct delay_shape *s, uint64_t now_ns, uint64_t before_ns, uint32_t n)
{
    const struct delay_spec *spec = &s->spec;
    uint64_t due = now_ns;

    if (spec->rate) {
        s->free_ns = (s->free_ns > now_ns ? s->free_ns : now_ns) + n * 1000000000ull / spec->rate;
        due = s->free_ns;
    }
    due += spec->delay_ns;
    if (spec->jitter_ns)
        due += draw(s) % (spec->jitter_ns + 1);
    due = due > before_ns ? due : before_ns;
    if (spec->stall_every_ns && due >= s->start_ns + spec->stall_every_ns) {
        uint64_t into = (due - s->start_ns) % spec->stall_every_ns;

        if (into < spec->stall_ns)
            due += spec->stall_ns - into;
    }
    return due;
}

uint64_t delay_shape_read_at(const struct delay_shape *s)
{
    return s->spec.rate && s->free_ns > DELAY_QUEUE_NS ? s->free_ns - DELAY_QUEUE_NS : 0;
}
