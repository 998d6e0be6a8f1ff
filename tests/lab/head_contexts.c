/* SPDX-License-Identifier: Apache-2.0 */
/*
 * head_contexts MODEL TEXT N [THREADS]: the next token of N distinct contexts with the full head, the
 * screened one and the statistical one, greedy and drawn with a seed, penalties and biases.
 *
 * Contexts are the beginnings of windows of the text's ids, each window starting elsewhere; TEXT `-` stands
 * for random ids.  Prints what was found; ends with 1 when the screened head gave another token even once, or
 * did not screen.
 */
#include "coordinator/sample.h"
#include "engine/base/log.h"
#include "engine/forward.h"
#include "engine/head.h"
#include "engine/tokenizer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define WINDOW 128
#define ROWS   32 /* of a batch, and of x in the heads */
#define N_BIAS 6

enum { FULL, SCREENED, STATISTICAL, N_HEADS };

struct lab {
    struct tern_gguf *g;
    struct tern_arch arch;
    struct tern_kernels kern;
    struct tern_pool *pool;
    struct tern_model *m;
    struct tern_kv_store kv;
    struct tern_scratch *s;
    struct tern_head *heads[N_HEADS];
    struct sampler *greedy[N_HEADS], *drawn[N_HEADS];
    int32_t *ids;
    size_t n_ids;
    float *x, *y;
    uint8_t *out;
    uint64_t n, different[N_HEADS][2], ns[N_HEADS];
};

static struct tern_err err;

static void need(enum tern_status st)
{
    if (st) {
        fprintf(stderr, "head_contexts: %s\n", err.text);
        exit(2);
    }
}

static void *room(size_t bytes)
{
    void *p = calloc(1, bytes);

    if (!p)
        exit(2);
    return p;
}

static uint64_t next(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15u;

    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    return z ^ z >> 27;
}

static void read_ids(struct lab *l, const char *path)
{
    struct tern_tokenizer *tok;
    struct tern_ids ids = { 0 };
    uint64_t state = 1;
    char *text = room((size_t)1 << 20);
    FILE *f;

    if (strcmp(path, "-") == 0) {
        l->n_ids = (size_t)1 << 20;
        l->ids = room(l->n_ids * sizeof *l->ids);
        for (size_t i = 0; i < l->n_ids; i++)
            l->ids[i] = (int32_t)(next(&state) % l->arch.n_vocab);
    } else {
        f = fopen(path, "rb");
        if (!f) {
            fprintf(stderr, "head_contexts: cannot read %s\n", path);
            exit(2);
        }
        need(tern_tokenizer_new(l->g, NULL, &tok, &err));
        need(tern_tokenizer_encode(tok, text, fread(text, 1, (size_t)1 << 20, f), false, false, &ids, &err));
        fclose(f);
        tern_tokenizer_free(&tok);
        l->ids = ids.ids;
        l->n_ids = ids.n;
    }
    free(text);
}

static void open_samplers(struct lab *l)
{
    struct sample_options greedy, drawn;
    uint64_t state = 7;

    sample_options_default(&greedy);
    greedy.temperature = 0;
    sample_options_default(&drawn);
    drawn.temperature = 1.0;
    drawn.repeat_penalty = 1.1;
    drawn.frequency_penalty = 0.1;
    drawn.presence_penalty = 0.1;
    drawn.seed = 3;
    for (drawn.n_bias = 0; drawn.n_bias < N_BIAS; drawn.n_bias++)
        drawn.bias[drawn.n_bias] = (struct sample_bias){ (int32_t)(next(&state) % l->arch.n_vocab),
                                                         drawn.n_bias % 2 ? 4.0f : -4.0f };
    for (int h = 0; h < N_HEADS; h++) {
        need(sampler_new(&greedy, &l->kern, l->arch.n_vocab, &l->greedy[h], &err));
        need(sampler_new(&drawn, &l->kern, l->arch.n_vocab, &l->drawn[h], &err));
    }
}

static void open_model(struct lab *l, const char *path, unsigned threads)
{
    static const enum tern_head_mode modes[] = { TERN_HEAD_FULL, TERN_HEAD_SCREENED, TERN_HEAD_STATISTICAL };
    struct tern_model_options mo = { .with_embd = true };
    const struct tern_arch *a = &l->arch;

    need(tern_gguf_open(path, &l->g, &err));
    need(tern_arch_read(l->g, &l->arch, &err));
    tern_kernels_init(&l->kern, tern_cpu_detect());
    need(tern_pool_new(threads, &l->pool, &err));
    mo.last = a->n_layers;
    need(tern_model_load(l->g, a, &l->kern, l->pool, &mo, &l->m, &err));
    need(tern_kv_store_new(TERN_KV_F16, WINDOW / TERN_PAGE, a->n_layers, a->n_kv_heads, a->head_dim, &l->kv,
                           &err));
    need(tern_scratch_new(a, ROWS, threads, &l->s, &err));
    for (int h = 0; h < N_HEADS; h++) {
        uint64_t t0 = tern_now_ns();

        need(tern_head_new(l->m, l->pool, modes[h], ROWS, &l->heads[h], &err));
        printf("%-12s built in %.0f ms, reads %.1f MB a token\n", tern_head_mode_name(modes[h]),
               (double)(tern_now_ns() - t0) / 1e6, (double)tern_head_bytes_read(l->heads[h]) / 1e6);
    }
    l->x = room(ROWS * a->n_embd * sizeof(float));
    l->y = room(ROWS * a->n_embd * sizeof(float));
    l->out = room(ROWS * tern_boundary_row_bytes(TERN_BOUNDARY_F32, a->n_embd));
}

/* Row i of the batch is the end of the context ids[0 .. n + i]. */
static void compare(struct lab *l, const int32_t *ids, uint32_t n)
{
    int32_t first[2][ROWS];

    for (int h = 0; h < N_HEADS; h++) {
        for (int drawn = 0; drawn < 2; drawn++) {
            struct sampler *s = drawn ? l->drawn[h] : l->greedy[h];
            struct tern_head_want want[ROWS];
            struct tern_head_row row[ROWS];
            static int32_t forced[ROWS][WINDOW + N_BIAS];
            uint64_t t0 = tern_now_ns();

            memcpy(l->y, l->x, ROWS * l->arch.n_embd * sizeof(float));
            for (uint32_t i = 0; i < ROWS; i++) {
                sampler_want(s, ids, n + i + 1, &want[i]);
                memcpy(forced[i], want[i].forced, want[i].n_forced * sizeof forced[i][0]);
                want[i].forced = forced[i];
            }
            tern_head_run(l->heads[h], l->y, ROWS, want, row);
            l->ns[h] += tern_now_ns() - t0;
            for (uint32_t i = 0; i < ROWS; i++) {
                int32_t id;

                need(sampler_pick(s, &row[i], ids, n + i + 1, &id, &err));
                if (h == FULL)
                    first[drawn][i] = id;
                l->different[h][drawn] += id != first[drawn][i];
            }
        }
    }
    l->n += ROWS;
}

static void run_window(struct lab *l, const int32_t *ids)
{
    static const uint32_t pages[WINDOW / TERN_PAGE] = { 0, 1, 2, 3 };

    for (uint32_t n = 0; n < WINDOW; n += ROWS) {
        struct tern_row rows[ROWS];

        for (uint32_t i = 0; i < ROWS; i++)
            rows[i] = (struct tern_row){ pages, n + i, 0 };
        tern_forward_embed(l->m, ids + n, ROWS, l->x);
        tern_forward_layers(l->m, l->pool, l->s, &l->kv, TERN_BOUNDARY_F32, rows, ROWS, l->x, l->out);
        compare(l, ids, n);
    }
}

static int report(const struct lab *l)
{
    const struct tern_head_stats *s = tern_head_stats(l->heads[SCREENED]);

    printf("%llu contexts, each greedy and drawn\n", (unsigned long long)l->n);
    for (int h = SCREENED; h < N_HEADS; h++) {
        const struct tern_head_stats *t = tern_head_stats(l->heads[h]);

        printf(
            "%-12s %llu greedy and %llu drawn tokens differ; %.1f rows recomputed; %llu of %llu rows by all "
            "logits\n",
            tern_head_mode_name(tern_head_mode(l->heads[h])), (unsigned long long)l->different[h][0],
            (unsigned long long)l->different[h][1],
            t->screened ? (double)t->recomputed / (double)t->screened : 0,
            (unsigned long long)(t->full + t->fallback), (unsigned long long)t->rows);
    }
    for (int h = 0; h < N_HEADS; h++)
        printf("%-12s %.3f ms a row in batches of %d\n", tern_head_mode_name(tern_head_mode(l->heads[h])),
               (double)l->ns[h] / 1e6 / (double)(2 * l->n), ROWS);
    return l->different[SCREENED][0] || l->different[SCREENED][1] || s->fallback * 2 > s->rows;
}

static void close_all(struct lab *l)
{
    for (int h = 0; h < N_HEADS; h++) {
        sampler_free(&l->greedy[h]);
        sampler_free(&l->drawn[h]);
        tern_head_free(&l->heads[h]);
    }
    free(l->ids);
    free(l->x);
    free(l->y);
    free(l->out);
    tern_scratch_free(&l->s);
    tern_kv_store_free(&l->kv);
    tern_model_free(&l->m);
    tern_pool_free(&l->pool);
    tern_gguf_close(&l->g);
}

int main(int argc, char **argv)
{
    struct lab l = { 0 };
    uint64_t n;
    int result;
    size_t stride;

    if (argc < 4) {
        fprintf(stderr, "usage: head_contexts MODEL TEXT|- CONTEXTS [THREADS]\n");
        return 2;
    }
    tern_cpu_set_float_mode();
    n = strtoull(argv[3], NULL, 10);
    open_model(&l, argv[1], argc > 4 ? (unsigned)atoi(argv[4]) : 1);
    read_ids(&l, argv[2]);
    open_samplers(&l);
    stride = l.n_ids < WINDOW || n < WINDOW ? 1 : (l.n_ids - WINDOW) * WINDOW / n;
    for (size_t at = 0; l.n < n && at + WINDOW <= l.n_ids; at += stride ? stride : 1)
        run_window(&l, l.ids + at);
    if (l.n < n) {
        fprintf(stderr, "head_contexts: the text is too short\n");
        return 2;
    }
    result = report(&l);
    close_all(&l);
    return result;
}
