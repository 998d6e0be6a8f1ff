/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Slots, generations, pages with reference counts, and the memory of the pages.
 */
#include "engine/kv.h"

#include "engine/base/mem.h"

#include <stdlib.h>
#include <string.h>

struct slot {
    bool live, failed;
    uint32_t gen;     /* of the live sequence, or the last one that was */
    uint32_t len;     /* positions */
    uint32_t n_pages; /* ceil(len / TERN_PAGE) */
    uint32_t *pages;  /* [max_pages] */
};

struct tern_kv_table {
    uint32_t n_slots, n_pages, max_positions, max_pages;
    uint32_t n_free;
    uint32_t *free_pages; /* a stack, so that the same operations take the same pages everywhere */
    uint32_t *refs;       /* [n_pages] */
    uint32_t *page_lists; /* [n_slots][max_pages] */
    struct slot *slots;
};

static uint32_t pages_for(uint32_t positions)
{
    return positions / TERN_PAGE + (positions % TERN_PAGE != 0);
}

enum tern_status tern_kv_table_new(uint32_t n_slots, uint32_t n_pages, uint32_t max_positions,
                                   struct tern_kv_table **out, struct tern_err *err)
{
    struct tern_kv_table *t;

    if (n_slots < 1 || n_slots > TERN_MAX_SLOTS)
        return TERN_FAIL(err, TERN_ERR_LIMIT, "%u sequence slots were asked for; 1 to %d are possible",
                         n_slots, TERN_MAX_SLOTS);
    if (max_positions < 1 || max_positions > TERN_MAX_CONTEXT)
        return TERN_FAIL(err, TERN_ERR_LIMIT, "a context of %u positions was asked for; 1 to %d are possible",
                         max_positions, TERN_MAX_CONTEXT);
    if (n_pages < 1 || n_pages > (uint32_t)TERN_MAX_SLOTS * (TERN_MAX_CONTEXT / TERN_PAGE))
        return TERN_FAIL(err, TERN_ERR_LIMIT, "%u KV pages were asked for; at least 1 is needed", n_pages);
    t = calloc(1, sizeof *t);
    if (!t)
        goto no_memory;
    t->n_slots = n_slots;
    t->n_pages = n_pages;
    t->max_positions = max_positions;
    t->max_pages = pages_for(max_positions);
    t->free_pages = calloc(n_pages, sizeof *t->free_pages);
    t->refs = calloc(n_pages, sizeof *t->refs);
    t->page_lists = calloc((size_t)n_slots * t->max_pages, sizeof *t->page_lists);
    t->slots = calloc(n_slots, sizeof *t->slots);
    if (!t->free_pages || !t->refs || !t->page_lists || !t->slots)
        goto no_memory;
    for (uint32_t i = 0; i < n_slots; i++)
        t->slots[i].pages = t->page_lists + (size_t)i * t->max_pages;
    tern_kv_reset(t);
    *out = t;
    return TERN_OK;

no_memory:
    tern_kv_table_free(&t);
    return TERN_FAIL(err, TERN_ERR_MEMORY, "no memory for the table of %u KV pages", n_pages);
}

void tern_kv_table_free(struct tern_kv_table **tp)
{
    struct tern_kv_table *t = *tp;

    if (!t)
        return;
    free(t->free_pages);
    free(t->refs);
    free(t->page_lists);
    free(t->slots);
    free(t);
    *tp = NULL;
}

void tern_kv_reset(struct tern_kv_table *t)
{
    t->n_free = t->n_pages;
    for (uint32_t i = 0; i < t->n_pages; i++) {
        t->free_pages[i] = t->n_pages - 1 - i; /* page 0 is taken first */
        t->refs[i] = 0;
    }
    for (uint32_t i = 0; i < t->n_slots; i++) {
        struct slot *s = &t->slots[i];

        s->live = s->failed = false;
        s->gen = s->len = s->n_pages = 0;
    }
}

static uint32_t take_page(struct tern_kv_table *t)
{
    uint32_t page = t->free_pages[--t->n_free];

    t->refs[page] = 1;
    return page;
}

static void drop_page(struct tern_kv_table *t, uint32_t page)
{
    if (--t->refs[page] == 0)
        t->free_pages[t->n_free++] = page;
}

static struct slot *find(const struct tern_kv_table *t, uint32_t slot, uint32_t gen)
{
    struct slot *s;

    if (slot >= t->n_slots)
        return NULL;
    s = &t->slots[slot];
    return s->live && s->gen == gen ? s : NULL;
}

static enum tern_status unknown(struct tern_err *err, uint32_t slot, uint32_t gen)
{
    return TERN_FAIL(err, TERN_ERR_STATE, "there is no sequence in slot %u with generation %u", slot, gen);
}

enum tern_status tern_kv_open(struct tern_kv_table *t, uint32_t slot, uint32_t gen, struct tern_err *err)
{
    struct slot *s;

    if (slot >= t->n_slots)
        return TERN_FAIL(err, TERN_ERR_STATE, "slot %u was to be opened; there are %u", slot, t->n_slots);
    s = &t->slots[slot];
    if (s->live)
        return TERN_FAIL(err, TERN_ERR_STATE, "slot %u was to be opened but is in use", slot);
    if (gen <= s->gen)
        return TERN_FAIL(err, TERN_ERR_STATE,
                         "slot %u was to be opened with generation %u; it has had %u already", slot, gen,
                         s->gen);
    s->live = true;
    s->failed = false;
    s->gen = gen;
    s->len = s->n_pages = 0;
    return TERN_OK;
}

static void cut_pages(struct tern_kv_table *t, struct slot *s, uint32_t keep)
{
    while (s->n_pages > keep)
        drop_page(t, s->pages[--s->n_pages]);
}

enum tern_status tern_kv_free(struct tern_kv_table *t, uint32_t slot, uint32_t gen, struct tern_err *err)
{
    struct slot *s = find(t, slot, gen);

    if (!s)
        return unknown(err, slot, gen);
    cut_pages(t, s, 0);
    s->live = false;
    s->len = 0;
    return TERN_OK;
}

enum tern_status tern_kv_rewind(struct tern_kv_table *t, uint32_t slot, uint32_t gen, uint32_t len,
                                struct tern_err *err)
{
    struct slot *s = find(t, slot, gen);

    if (!s)
        return unknown(err, slot, gen);
    if (len > s->len)
        return TERN_FAIL(err, TERN_ERR_STATE, "slot %u was to be cut to %u positions but has %u", slot, len,
                         s->len);
    cut_pages(t, s, pages_for(len));
    s->len = len;
    return TERN_OK;
}

enum tern_status tern_kv_fork(struct tern_kv_table *t, uint32_t slot, uint32_t gen, uint32_t from_slot,
                              uint32_t from_gen, uint32_t len, uint32_t *copy_from, uint32_t *copy_to,
                              struct tern_err *err)
{
    struct slot *from = find(t, from_slot, from_gen);
    struct slot *s;
    uint32_t whole = len / TERN_PAGE;
    enum tern_status st;

    if (!from)
        return unknown(err, from_slot, from_gen);
    if (len > from->len)
        return TERN_FAIL(err, TERN_ERR_STATE, "%u positions of slot %u were to be shared but it has %u", len,
                         from_slot, from->len);
    if (len % TERN_PAGE != 0 && t->n_free == 0)
        return TERN_FAIL(err, TERN_ERR_LIMIT, "the KV cache has no free page");
    st = tern_kv_open(t, slot, gen, err);
    if (st)
        return st;
    s = &t->slots[slot];
    for (uint32_t i = 0; i < whole; i++) {
        s->pages[i] = from->pages[i];
        t->refs[s->pages[i]]++;
    }
    s->n_pages = whole;
    *copy_from = *copy_to = 0;
    if (len % TERN_PAGE != 0) {
        *copy_from = from->pages[whole];
        *copy_to = take_page(t);
        s->pages[s->n_pages++] = *copy_to;
    }
    s->len = len;
    s->failed = from->failed;
    return TERN_OK;
}

/* A page shared with others is not written: its end becomes a copy. */
static bool must_copy(const struct tern_kv_table *t, const struct slot *s, uint32_t n)
{
    return n > 0 && s->len % TERN_PAGE != 0 && t->refs[s->pages[s->n_pages - 1]] > 1;
}

uint32_t tern_kv_pages_needed(const struct tern_kv_table *t, uint32_t slot, uint32_t gen, uint32_t n)
{
    const struct slot *s = find(t, slot, gen);

    return s ? pages_for(s->len + n) - s->n_pages + must_copy(t, s, n) : 0;
}

enum tern_status tern_kv_append(struct tern_kv_table *t, uint32_t slot, uint32_t gen, uint32_t pos,
                                uint32_t n, uint32_t *copy_from, uint32_t *copy_to, struct tern_err *err)
{
    struct slot *s = find(t, slot, gen);
    uint32_t want, tail = 0;
    bool copy;

    if (!s)
        return unknown(err, slot, gen);
    if (s->failed)
        return TERN_FAIL(err, TERN_ERR_NUMERIC, "the sequence in slot %u has failed before", slot);
    if (pos != s->len)
        return TERN_FAIL(err, TERN_ERR_STATE, "slot %u has %u positions but rows came for position %u", slot,
                         s->len, pos);
    if (n > t->max_positions - s->len)
        return TERN_FAIL(err, TERN_ERR_LIMIT, "%u more positions in slot %u would pass the context of %u", n,
                         slot, t->max_positions);
    copy = must_copy(t, s, n);
    want = pages_for(s->len + n) - s->n_pages + (copy ? 1 : 0);
    if (want > t->n_free)
        return TERN_FAIL(err, TERN_ERR_LIMIT, "the KV cache has %u free pages and %u are needed", t->n_free,
                         want);
    *copy_from = *copy_to = 0;
    if (copy) {
        tail = s->n_pages - 1;
        *copy_from = s->pages[tail];
        *copy_to = take_page(t);
        drop_page(t, *copy_from);
        s->pages[tail] = *copy_to;
    }
    s->len += n;
    while (s->n_pages < pages_for(s->len))
        s->pages[s->n_pages++] = take_page(t);
    return TERN_OK;
}

void tern_kv_fail(struct tern_kv_table *t, uint32_t slot, uint32_t gen)
{
    struct slot *s = find(t, slot, gen);

    if (s)
        s->failed = true;
}

bool tern_kv_length(const struct tern_kv_table *t, uint32_t slot, uint32_t gen, uint32_t *len)
{
    const struct slot *s = find(t, slot, gen);

    if (!s)
        return false;
    *len = s->len;
    return true;
}

uint32_t tern_kv_pages_free(const struct tern_kv_table *t)
{
    return t->n_free;
}

const uint32_t *tern_kv_pages(const struct tern_kv_table *t, uint32_t slot)
{
    return t->slots[slot].pages;
}

/* -- store ----------------------------------------------------------------------------------------------- */

static const char *const type_names[TERN_N_KV_TYPES] = { [TERN_KV_F16] = "f16", [TERN_KV_INT8] = "int8" };

const char *tern_kv_type_name(enum tern_kv_type type)
{
    return type_names[type];
}

bool tern_kv_type_by_name(const char *name, enum tern_kv_type *out)
{
    for (uint32_t i = 0; tern_kv_type_valid(i); i++)
        if (strcmp(name, type_names[i]) == 0) {
            *out = (enum tern_kv_type)i;
            return true;
        }
    return false;
}

bool tern_kv_type_valid(uint32_t type)
{
    return type < TERN_N_KV_TYPES;
}

static size_t plane_bytes(enum tern_kv_type type, uint32_t head_dim)
{
    size_t row = type == TERN_KV_INT8 ? head_dim + sizeof(float) : head_dim * sizeof(uint16_t);

    return row * TERN_PAGE;
}

size_t tern_kv_page_bytes(enum tern_kv_type type, uint32_t n_layers, uint32_t n_kv_heads, uint32_t head_dim)
{
    size_t n = 2 * plane_bytes(type, head_dim);

    if (!tern_mul_size(n, n_kv_heads, &n) || !tern_mul_size(n, n_layers, &n))
        return 0;
    return n;
}

enum tern_status tern_kv_store_new(enum tern_kv_type type, uint32_t n_pages, uint32_t n_layers,
                                   uint32_t n_kv_heads, uint32_t head_dim, struct tern_kv_store *out,
                                   struct tern_err *err)
{
    size_t n = tern_kv_page_bytes(type, n_layers, n_kv_heads, head_dim);
    void *p;
    enum tern_status st;

    if (n == 0 || !tern_mul_size(n, n_pages, &n))
        return TERN_FAIL(err, TERN_ERR_LIMIT, "a KV cache of %u pages does not fit the address space",
                         n_pages);
    st = tern_block_new(n, "the KV cache", &p, err);
    if (st)
        return st;
    *out = (struct tern_kv_store){ .data = p,
                                   .bytes = n,
                                   .plane_bytes = plane_bytes(type, head_dim),
                                   .type = type,
                                   .n_pages = n_pages,
                                   .n_layers = n_layers,
                                   .n_kv_heads = n_kv_heads,
                                   .head_dim = head_dim };
    return TERN_OK;
}

void tern_kv_store_free(struct tern_kv_store *s)
{
    void *p = s->data;

    tern_block_free(&p, s->bytes);
    memset(s, 0, sizeof *s);
}

void tern_kv_store_copy_page(struct tern_kv_store *s, uint32_t from, uint32_t to)
{
    size_t page = s->bytes / s->n_pages;

    if (from != to)
        memcpy(s->data + to * page, s->data + from * page, page);
}

void tern_kv_put(const struct tern_kv_store *s, const struct tern_kernels *kern, uint8_t *plane, uint32_t pos,
                 const float *x)
{
    size_t n = s->head_dim, at = pos * n;

    if (s->type == TERN_KV_INT8)
        kern->encode_i8(x, n, n, tern_kv_scales(s, plane) + pos, (int8_t *)plane + at);
    else
        kern->f32_to_f16(x, n, (uint16_t *)(void *)plane + at);
}
