/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Numbers of a schema: see grammar_schema.h.
 *
 * A range of integers is written digit by digit: numbers of one length that are at least (or at most) another
 * have its first digits, then a greater (or smaller) one, then any.  Beyond integers, six digits behind the
 * point: with nine in front of it no reader rounds them over a bound.
 */
#include "coordinator/grammar_schema.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define MAX_INTEGER 999999999999999999 /* 18 digits */
#define MAX_BOUND   1000000000         /* of numbers that are not integers */

struct bounds {
    int64_t lo, hi;
    bool lo_open, hi_open; /* the bound itself is out; integers have it moved instead */
    bool any;              /* there is one */
};

/* -- ranges of digits ------------------------------------------------------------------------------------ */

static void put_digits(struct schema_compiler *c, char lo, char hi, size_t n_more)
{
    if (lo == hi)
        schema_put(c, "\"%c\"", lo);
    else
        schema_put(c, "[%c-%c]", lo, hi);
    if (n_more)
        schema_put(c, " [0-9]{%zu}", n_more);
}

static bool all_are(const char *d, size_t n, char digit)
{
    for (size_t i = 0; i < n; i++)
        if (d[i] != digit)
            return false;
    return true;
}

/* n digits from lo to hi, in parentheses.  A bound of NULL is none. */
static void put_same_length(struct schema_compiler *c, const char *lo, const char *hi, size_t n)
{
    const char first = lo ? *lo : '0', last = hi ? *hi : '9';
    char from = first, to = last;

    if (n == 0)
        return;
    if (first == last && (lo || hi)) {
        schema_put(c, "\"%c\" ", first);
        put_same_length(c, lo ? lo + 1 : NULL, hi ? hi + 1 : NULL, n - 1);
        return;
    }
    schema_put(c, "(");
    if (lo && !all_are(lo + 1, n - 1, '0')) {
        schema_put(c, "\"%c\" ", first);
        put_same_length(c, lo + 1, NULL, n - 1);
        schema_put(c, " | ");
        from++;
    }
    if (hi && !all_are(hi + 1, n - 1, '9')) {
        schema_put(c, "\"%c\" ", last);
        put_same_length(c, NULL, hi + 1, n - 1);
        to--;
        if (from <= to)
            schema_put(c, " | ");
    }
    if (from <= to)
        put_digits(c, from, to, n - 1);
    schema_put(c, ")");
}

/* Decimal numbers from lo to hi, 0 <= lo <= hi, as alternatives. */
static void put_range(struct schema_compiler *c, int64_t lo, int64_t hi)
{
    char a[24], b[24];
    const size_t n_lo = (size_t)snprintf(a, sizeof a, "%lld", (long long)lo),
                 n_hi = (size_t)snprintf(b, sizeof b, "%lld", (long long)hi);

    for (size_t n = n_lo; n <= n_hi; n++) {
        if (n > n_lo) {
            memset(a, '0', n);
            a[0] = '1';
            schema_put(c, " | ");
        }
        if (n < n_hi) {
            char nines[24];

            memset(nines, '9', sizeof nines);
            put_same_length(c, a, nines, n);
        } else {
            put_same_length(c, a, b, n);
        }
    }
}

/* -- bounds ---------------------------------------------------------------------------------------------- */

/* A bound as an integer, at or next to it outwards of the numbers that are left out; *exact: it is one. */
static bool read_bound(struct schema_compiler *c, const json_t *s, const char *key, bool up, int64_t *out,
                       bool *exact)
{
    const json_t *v = json_object_get(s, key);
    double d;

    if (!v)
        return false;
    *exact = true;
    if (json_is_integer(v)) {
        *out = json_integer_value(v);
        return true;
    }
    if (!json_is_real(v)) {
        schema_refuse(c, TERN_ERR_FORMAT, key, "must be a number");
        return false;
    }
    d = json_real_value(v);
    *exact = d == floor(d);
    d = up ? ceil(d) : floor(d);
    *out = d > 4e18 ? (int64_t)4e18 : d < -4e18 ? (int64_t)-4e18 : (int64_t)d;
    return true;
}

static void lower(struct schema_compiler *c, const json_t *s, const char *key, bool open, bool whole,
                  struct bounds *b)
{
    int64_t v;
    bool exact;

    if (!read_bound(c, s, key, true, &v, &exact))
        return;
    if (!whole && !exact)
        schema_refuse(c, TERN_ERR_UNSUPPORTED, key, "numbers can be bounded by integers only");
    if (open && exact && whole && v < INT64_MAX)
        v++;
    if (v > b->lo || (v == b->lo && open)) {
        b->lo = v;
        b->lo_open = open && !whole;
    }
    b->any = true;
}

static void upper(struct schema_compiler *c, const json_t *s, const char *key, bool open, bool whole,
                  struct bounds *b)
{
    int64_t v;
    bool exact;

    if (!read_bound(c, s, key, false, &v, &exact))
        return;
    if (!whole && !exact)
        schema_refuse(c, TERN_ERR_UNSUPPORTED, key, "numbers can be bounded by integers only");
    if (open && exact && whole && v > INT64_MIN)
        v--;
    if (v < b->hi || (v == b->hi && open)) {
        b->hi = v;
        b->hi_open = open && !whole;
    }
    b->any = true;
}

/* exclusiveMinimum was a boolean once, beside minimum. */
static bool is_open(const json_t *s, const char *key)
{
    return json_is_true(json_object_get(s, key));
}

static void read_bounds(struct schema_compiler *c, const json_t *s, bool whole, struct bounds *b)
{
    const int64_t most = whole ? MAX_INTEGER : MAX_BOUND;

    *b = (struct bounds){ -most, most, false, false, false };
    lower(c, s, "minimum", is_open(s, "exclusiveMinimum"), whole, b);
    upper(c, s, "maximum", is_open(s, "exclusiveMaximum"), whole, b);
    if (!json_is_boolean(json_object_get(s, "exclusiveMinimum")))
        lower(c, s, "exclusiveMinimum", true, whole, b);
    if (!json_is_boolean(json_object_get(s, "exclusiveMaximum")))
        upper(c, s, "exclusiveMaximum", true, whole, b);
    if (b->lo > most || b->hi < -most)
        schema_refuse(c, TERN_ERR_LIMIT, b->lo > most ? "minimum" : "maximum",
                      whole ? "integers have at most 18 digits" : "numbers with bounds are up to 10^9");
    else if (b->lo > b->hi || (b->lo == b->hi && (b->lo_open || b->hi_open)))
        schema_refuse(c, TERN_ERR_FORMAT, NULL, "no number is within the bounds");
}

/* -- numbers --------------------------------------------------------------------------------------------- */

/* Numbers from lo to hi, 0 <= lo <= hi; integers only, or with a fraction.  n: alternatives so far. */
static void put_alternatives(struct schema_compiler *c, struct bounds b, bool whole, const char *sign,
                             unsigned *n)
{
    const int64_t from = b.lo + b.lo_open, to = whole ? b.hi : b.hi - 1;

    if (b.lo_open && b.lo < b.hi)
        schema_put(c, "%s\"%s%lld.\" [0-9]{0,5} [1-9]", (*n)++ ? " | " : "", sign, (long long)b.lo);
    if (from <= to) {
        schema_put(c, "%s\"%s\" (", (*n)++ ? " | " : "", sign);
        put_range(c, from, to);
        schema_put(c, whole ? ")" : ") (\".\" [0-9]{1,6})?");
    }
    if (!whole && !b.hi_open && (b.lo < b.hi || !b.lo_open))
        schema_put(c, "%s\"%s%lld\" (\".\" [0]{1,6})?", (*n)++ ? " | " : "", sign, (long long)b.hi);
}

void schema_put_number(struct schema_compiler *c, const json_t *s, bool whole)
{
    struct bounds b, part;
    unsigned n = 0;

    read_bounds(c, s, whole, &b);
    if (!b.any || c->failed) {
        schema_put(c, whole ? "integer" : "number");
        return;
    }
    schema_put(c, "(");
    if (b.lo < 0) { /* as positive numbers behind a sign */
        part = (struct bounds){ b.hi < 0 ? -b.hi : whole, -b.lo, b.hi <= 0 && b.hi_open, b.lo_open, true };
        if (part.lo <= part.hi)
            put_alternatives(c, part, whole, "-", &n);
    }
    if (b.hi >= 0) {
        part = (struct bounds){ b.lo > 0 ? b.lo : 0, b.hi, b.lo >= 0 && b.lo_open, b.hi_open, true };
        put_alternatives(c, part, whole, "", &n);
    }
    schema_put(c, ")");
}
