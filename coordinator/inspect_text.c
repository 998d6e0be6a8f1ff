/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `tern inspect` for people: aligned tables on stdout.  Text from the file is shown with everything that
 * could move a cursor replaced, and cut to fit a line.
 */
#include "coordinator/inspect.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define VALUE_CHARS 60  /* of a string from the file */
#define LINE_CHARS  100 /* of a terminal */
#define MANY        8   /* elements of an array that are shown */

size_t inspect_types(const struct tern_gguf *g, struct inspect_type *out, size_t cap)
{
    size_t n = 0;

    for (size_t i = 0; i < g->n_tensors; i++) {
        size_t at = 0;

        while (at < n && out[at].type != g->tensors[i].type)
            at++;
        if (at == cap)
            continue;
        if (at == n)
            out[n++] = (struct inspect_type){ .type = g->tensors[i].type };
        out[at].n++;
        out[at].bytes += g->tensors[i].bytes;
    }
    return n;
}

const char *inspect_kind(uint32_t type)
{
    static const char *const names[] = { "u8",   "i8",     "u16",   "i16", "u32", "i32", "f32",
                                         "bool", "string", "array", "u64", "i64", "f64" };

    return type < sizeof names / sizeof names[0] ? names[type] : "?";
}

/* "3.3 MiB"; small ones in bytes. */
static const char *human(uint64_t bytes, char buf[32])
{
    static const char *const units[] = { "KiB", "MiB", "GiB", "TiB" };
    double v = (double)bytes;
    int u = -1;

    while (v >= 1024 && u < 3) {
        v /= 1024;
        u++;
    }
    if (u < 0)
        snprintf(buf, 32, "%" PRIu64 " B", bytes);
    else
        snprintf(buf, 32, "%.1f %s", v, units[u]);
    return buf;
}

/* At most max bytes, and then "..." to say so. */
static void print_cut(struct tern_str s, size_t max)
{
    size_t n = s.len <= max ? s.len : max - 3;

    /* Not in the middle of a character. */
    while (n < s.len && n > 0 && ((unsigned char)s.ptr[n] & 0xc0) == 0x80)
        n--;
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)s.ptr[i];

        if (c == '\n')
            fputs("\\n", stdout);
        else
            putchar(c < 0x20 || c == 0x7f ? '?' : c);
    }
    if (n < s.len)
        fputs("...", stdout);
}

static void print_string(struct tern_str s)
{
    print_cut(s, VALUE_CHARS);
}

static void print_number(const struct tern_gguf_kv *kv, uint64_t i)
{
    if (kv->elem_type == TERN_GGUF_BOOL)
        fputs(kv->data[i] ? "true" : "false", stdout);
    else if (kv->elem_type == TERN_GGUF_F32 || kv->elem_type == TERN_GGUF_F64)
        printf("%.7g", tern_gguf_array_f64(kv, i));
    else if (kv->elem_type == TERN_GGUF_U64)
        printf("%" PRIu64, (uint64_t)tern_gguf_array_i64(kv, i));
    else
        printf("%" PRId64, tern_gguf_array_i64(kv, i));
}

/* In `room` columns; numbers of an array take what they take. */
static void print_value(const struct tern_gguf_kv *kv, size_t room)
{
    uint64_t shown = kv->n < MANY ? kv->n : MANY;
    struct tern_cursor c;
    struct tern_str s = { "", 0 };

    tern_cursor_init(&c, kv->data, kv->bytes);
    if (kv->elem_type == TERN_GGUF_STRING)
        shown = shown < 3 ? shown : 3;
    for (uint64_t i = 0; i < shown; i++) {
        fputs(i ? ", " : "", stdout);
        if (kv->elem_type != TERN_GGUF_STRING)
            print_number(kv, i);
        else if (tern_gguf_next_string(&c, &s))
            print_cut(s, kv->n > 1 ? room / 4 : room);
    }
    if (shown < kv->n)
        printf("%s... (%" PRIu64 ")", shown ? ", " : "", kv->n);
}

static void print_metadata(const struct tern_gguf *g)
{
    int width = 8;

    for (size_t i = 0; i < g->n_kv; i++)
        if (g->kv[i].key.len < 50 && (int)g->kv[i].key.len > width)
            width = (int)g->kv[i].key.len;
    printf("\nMetadata\n");
    for (size_t i = 0; i < g->n_kv; i++) {
        const struct tern_gguf_kv *kv = &g->kv[i];
        char kind[24];

        snprintf(kind, sizeof kind, "%s%s", inspect_kind(kv->elem_type),
                 kv->type == TERN_GGUF_ARRAY ? "[]" : "");
        fputs("  ", stdout);
        print_string(kv->key);
        printf("%*s  %-9s ", kv->key.len < 50 ? width - (int)kv->key.len : 0, "", kind);
        print_value(kv, (size_t)(LINE_CHARS - 14 - width));
        putchar('\n');
    }
}

static void print_arch(const struct tern_arch *a)
{
    printf("\nModel\n");
    printf("  %-18s %s\n", "architecture", a->name);
    printf("  %-18s %u\n", "layers", a->n_layers);
    printf("  %-18s %u\n", "hidden size", a->n_embd);
    printf("  %-18s %u\n", "ffn size", a->n_ffn);
    printf("  %-18s %u query, %u key-value, of %u dimensions\n", "heads", a->n_heads, a->n_kv_heads,
           a->head_dim);
    printf("  %-18s %u\n", "vocabulary", a->n_vocab);
    printf("  %-18s %u\n", "trained context", a->n_ctx_train);
    printf("  %-18s theta %g, pairs as %s%s; norm epsilon %g\n", "rope and norm", a->rope_theta,
           tern_rope_name(a->rope), a->n_rope_freqs ? ", with factors" : "", (double)a->rms_eps);
    if (a->swa.window) {
        uint32_t n = 0;

        for (uint32_t l = 0; l < a->n_layers; l++)
            n += tern_swa_slides(&a->swa, l);
        printf("  %-18s the last %u positions in %u of the layers, with theta %g\n", "sliding window",
               a->swa.window, n, a->swa.rope_theta);
    }
    printf("  %-18s %s\n", "activation", tern_activation_name(a->activation));
}

static void print_token(const struct tern_tokenizer *t, const char *what, int32_t id)
{
    printf("  %-18s ", what);
    if (id < 0) {
        printf("none\n");
        return;
    }
    printf("%d '", id);
    print_string(tern_tokenizer_piece(t, id, true));
    printf("'\n");
}

static void print_tokenizer(const struct inspect *in)
{
    const struct tern_tokenizer *t = in->tokenizer;
    struct tern_str model = { "", 0 };

    printf("\nTokenizer\n");
    if (tern_gguf_string(in->g, "tokenizer.ggml.model", &model, NULL) == TERN_OK) {
        printf("  %-18s ", "model");
        print_string(model);
        putchar('\n');
    }
    printf("  %-18s %s (%s)\n", "pre-tokenizer", tern_tokenizer_pre(t), tern_tokenizer_pre_source(t));
    printf("  %-18s %u tokens\n", "vocabulary", tern_tokenizer_n_vocab(t));
    print_token(t, "bos", tern_tokenizer_bos(t));
    print_token(t, "eos", tern_tokenizer_eos(t));
    printf("  %-18s %s\n", "adds bos", tern_tokenizer_add_bos(t) ? "yes" : "no");
}

static void print_tensors(const struct inspect *in)
{
    const struct tern_gguf *g = in->g;
    struct inspect_type types[64];
    size_t n = inspect_types(g, types, sizeof types / sizeof types[0]);
    int width = 8;
    char buf[32];

    printf("\nTensors\n");
    for (size_t i = 0; i < n; i++)
        printf("  %-10s %6zu of %12" PRIu64 " bytes  %s\n", tern_gguf_type_name(types[i].type), types[i].n,
               types[i].bytes, human(types[i].bytes, buf));
    if (!in->list_tensors)
        return;
    for (size_t i = 0; i < g->n_tensors; i++)
        if (g->tensors[i].name.len < VALUE_CHARS && (int)g->tensors[i].name.len > width)
            width = (int)g->tensors[i].name.len;
    putchar('\n');
    for (size_t i = 0; i < g->n_tensors; i++) {
        const struct tern_tensor *t = &g->tensors[i];
        char shape[100];
        int at = 0;

        for (uint32_t d = 0; d < t->n_dims; d++)
            at += snprintf(shape + at, sizeof shape - (size_t)at, "%s%" PRIu64, d ? " x " : "", t->ne[d]);
        fputs("  ", stdout);
        print_string(t->name);
        printf("%*s  %-8s %-16s %12zu\n", t->name.len < VALUE_CHARS ? width - (int)t->name.len : 0, "",
               tern_gguf_type_name(t->type), shape, t->bytes);
    }
}

static void print_part(const char *what, size_t bytes)
{
    char buf[32];

    if (bytes)
        printf("  %-30s %12zu  %s\n", what, bytes, human(bytes, buf));
}

static void print_memory(const struct inspect *in, const struct inspect_memory *m)
{
    char what[64];

    snprintf(what, sizeof what, "ternary weights, %s", tern_pack_layout_name(in->layout));
    print_part(what, m->need.tiles_bytes);
    print_part("norms", m->need.norms_bytes);
    print_part("embedding and head, mapped", m->need.embd_bytes);
    print_part("screened copy of the head", m->need.head_bytes);
    snprintf(what, sizeof what, "KV cache, %s", tern_kv_type_name(in->kv));
    print_part(what, m->kv_bytes[in->kv]);
    print_part("scratch", m->need.scratch_bytes);
    print_part("rows and logits", m->rows_bytes);
    print_part("program", m->need.fixed_bytes);
    print_part("in all", m->total_bytes);
    for (int l = 0; l < TERN_N_TILE_LAYOUTS; l++) {
        snprintf(what, sizeof what, "in all with --layout %s",
                 tern_pack_layout_name((enum tern_tile_layout)l));
        if (l != (int)in->layout && m->need.tiles_bytes)
            print_part(what, m->total_bytes - m->need.tiles_bytes + m->tiles_bytes[l]);
    }
    for (int t = 0; t < TERN_N_KV_TYPES; t++) {
        snprintf(what, sizeof what, "in all with --kv %s", tern_kv_type_name((enum tern_kv_type)t));
        if (t != (int)in->kv && m->kv_bytes[t])
            print_part(what, m->total_bytes - m->kv_bytes[in->kv] + m->kv_bytes[t]);
    }
    if (m->need.head_bytes) {
        print_part("in all with --head full", m->total_bytes - m->need.head_bytes);
        print_part("in all with --head statistical",
                   m->total_bytes - m->need.head_bytes + m->statistical_bytes);
    }
}

void inspect_print_text(const struct inspect *in)
{
    uint64_t n = tern_gguf_file_bytes(in->g);
    char buf[32], kind[32];

    snprintf(kind, sizeof kind, "GGUF version %u", in->g->version);
    printf("%s: %s, %llu bytes (%s), %zu keys, %zu tensors\n", in->path,
           in->g->owned ? "Hugging Face folder" : kind, (unsigned long long)n, human(n, buf), in->g->n_kv,
           in->g->n_tensors);
    if (in->has_hash) {
        printf("model hash ");
        for (size_t i = 0; i < sizeof in->hash; i++)
            printf("%02x", in->hash[i]);
        putchar('\n');
    }
    print_metadata(in->g);
    if (!in->arch_status)
        print_arch(&in->arch);
    if (in->tokenizer)
        print_tokenizer(in);
    print_tensors(in);
    if (in->has_worker) {
        printf("\nMemory of a worker of layers %u-%u: context %u, %u rows a step, %u thread%s\n", in->first,
               in->last - 1, in->ctx, in->rows, in->threads, in->threads == 1 ? "" : "s");
        print_memory(in, &in->worker);
    }
    if (in->has_coordinator) {
        printf("\nMemory of the coordinator\n");
        print_memory(in, &in->coordinator);
    }
    if (in->verify)
        inspect_print_verify(in->verify);
}
