/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The forward pass of every architecture: the same bits whatever the level, threads, tiles, chunks and cuts,
 * and near a layer written down once more in double, from the file's tensors by their names.
 */
#include "unit/lab_file.h"

#include "engine/forward.h"

#include <math.h>

#define MAX_ROWS 100
#define N_PAGES  4
#define THETA    10000.0
#define WINDOW   37 /* not a page, and much less than the rows of families that slide */
#define WIDE     1e6

/* What the architectures are, said here independently of the engine's table. */
struct family {
    const char *name, *arch;
    uint32_t embd, ffn, heads, kv_heads, head_dim;
    bool sub_norms, qk_norms, post_norms, input_norms;
    bool pairs; /* RoPE turns neighbours */
    char act;   /* r, s, g */
    bool scaled, freqs, scales;
    unsigned slides; /* bit l: layer l slides, with THETA; the others have WIDE then */
};

static const struct family families[] = {
    { "bitnet-b1.58", "bitnet-b1.58", 128, 384, 5, 1, 64, true, false, false, false, false, 'r', false, false,
      false, 0 },
    { "large", "bitnet", 192, 512, 2, 2, 96, true, false, false, false, false, 's', false, false, false, 0 },
    { "3B", "bitnet", 128, 8640, 2, 2, 100, true, false, false, false, false, 's', false, false, true, 0 },
    { "Llama 3", "llama", 128, 256, 4, 2, 32, false, false, false, false, true, 's', false, true, false, 0 },
    { "Falcon 3", "llama", 128, 640, 3, 1, 256, false, false, false, false, true, 's', false, false, false,
      0 },
    { "embedding 0.6B", "qwen3", 128, 384, 2, 1, 128, false, true, false, true, false, 's', false, false,
      false, 0 },
    { "qwen3", "qwen3", 128, 384, 4, 2, 32, false, true, false, false, false, 's', false, false, false, 0 },
    { "embedding 270M", "gemma3", 128, 256, 2, 1, 256, false, true, true, true, false, 'g', true, false,
      false, 0 },
    { "gemma3", "gemma3", 128, 256, 2, 1, 100, false, true, true, false, false, 'g', true, true, true, 0 },
    { "gemma3 that slides", "gemma3", 128, 256, 2, 1, 64, false, true, true, true, false, 'g', true, false,
      false, 1 },
    { "gemma3 that slides behind", "gemma3", 128, 256, 4, 2, 32, false, true, true, false, false, 'g', true,
      false, false, 2 },
    { "llama that slides", "llama", 128, 256, 4, 2, 32, false, false, false, false, true, 's', false, true,
      false, 3 },
};
#define N_FAMILIES (sizeof families / sizeof families[0])

/* More than a page. */
static uint32_t rows_of(const struct family *f)
{
    return f->slides ? MAX_ROWS : 40;
}

static double theta_of(const struct family *f, uint32_t layer)
{
    return f->slides && !(f->slides >> layer & 1) ? WIDE : THETA;
}

static struct lab_file file_of(const struct family *f, uint32_t n_layers)
{
    struct tern_synthetic s = lab_shape_small();

    s.arch = f->arch;
    s.n_layers = n_layers;
    s.n_embd = f->embd;
    s.n_ffn = f->ffn;
    s.n_heads = f->heads;
    s.n_kv_heads = f->kv_heads;
    s.head_dim = f->head_dim;
    s.embd = TERN_F32;
    s.no_input_norms = !f->input_norms;
    s.rope_freqs = f->freqs;
    s.scales = f->scales;
    s.varied_norms = true;
    if (f->slides) {
        s.rope_theta = WIDE;
        s.swa = (struct tern_swa){ .window = WINDOW, .rope_theta = THETA, .layers = { (uint8_t)f->slides } };
    }
    return lab_file_new(&s);
}

static int32_t token_at(uint32_t pos)
{
    return (int32_t)(pos * 7 % 320);
}

/* -- the engine ------------------------------------------------------------------------------------------ */

struct way {
    bool best; /* this machine's best level, or the reference */
    unsigned threads;
    enum tern_tile_layout tiles;
    uint32_t chunk;
    bool cut; /* a model for each layer */
    enum tern_kv_type kv;
};

/* One slice over n_rows rows, in chunks, in place; out gets the rows as encoded. */
static void run_slice(const struct tern_gguf *g, const struct way *w, uint32_t n_rows, uint32_t first,
                      uint32_t last, float *x, float *out)
{
    const struct tern_model_options mo = { .first = first, .last = last, .layout = w->tiles };
    const uint32_t pages[N_PAGES] = { 1, 0, 3, 2 };
    struct tern_kernels kern;
    struct tern_kv_store kv;
    struct tern_pool *pool;
    struct tern_arch arch;
    struct tern_model *m;
    struct tern_scratch *s;

    tern_kernels_init(&kern, w->best ? tern_cpu_detect() : TERN_CPU_REF);
    assert_ok(tern_pool_new(w->threads, &pool, &unit_err));
    assert_ok(tern_arch_read(g, &arch, &unit_err));
    assert_ok(tern_model_load(g, &arch, &kern, pool, &mo, &m, &unit_err));
    assert_ok(tern_scratch_new(&arch, MAX_ROWS, w->threads, &s, &unit_err));
    assert_ok(
        tern_kv_store_new(w->kv, N_PAGES, last - first, arch.n_kv_heads, arch.head_dim, &kv, &unit_err));
    for (uint32_t at = 0; at < n_rows; at += w->chunk) {
        uint32_t n = n_rows - at < w->chunk ? n_rows - at : w->chunk;
        struct tern_row rows[MAX_ROWS];

        for (uint32_t i = 0; i < n; i++)
            rows[i] = (struct tern_row){ pages, at + i, 0 };
        tern_forward_layers(m, pool, s, &kv, TERN_BOUNDARY_F32, rows, n, x + (size_t)at * arch.n_embd,
                            (uint8_t *)(out + (size_t)at * arch.n_embd));
        for (uint32_t i = 0; i < n; i++)
            assert_int_equal(rows[i].dead, 0);
    }
    tern_kv_store_free(&kv);
    tern_scratch_free(&s);
    tern_model_free(&m);
    tern_pool_free(&pool);
}

/* The embeddings of n tokens. */
static void embed(const struct tern_gguf *g, uint32_t n, float *x)
{
    const struct tern_model_options mo = { .with_embd = true };
    struct tern_kernels kern;
    struct tern_pool *pool;
    struct tern_arch arch;
    struct tern_model *m;
    int32_t ids[MAX_ROWS];

    for (int32_t i = 0; i < MAX_ROWS; i++)
        ids[i] = token_at((uint32_t)i);
    tern_kernels_init(&kern, TERN_CPU_REF);
    assert_ok(tern_pool_new(1, &pool, &unit_err));
    assert_ok(tern_arch_read(g, &arch, &unit_err));
    assert_ok(tern_model_load(g, &arch, &kern, pool, &mo, &m, &unit_err));
    tern_forward_embed(m, ids, n, x);
    tern_model_free(&m);
    tern_pool_free(&pool);
}

static float *run_way(const struct tern_gguf *g, const struct way *w, const struct family *f,
                      uint32_t n_layers)
{
    uint32_t n = rows_of(f);
    float *x = calloc((size_t)n * f->embd, sizeof *x), *out = calloc((size_t)n * f->embd, sizeof *x);

    assert_true(x && out);
    embed(g, n, x);
    if (w->cut)
        for (uint32_t l = 0; l < n_layers; l++)
            run_slice(g, w, n, l, l + 1, x, out);
    else
        run_slice(g, w, n, 0, n_layers, x, out);
    assert_memory_equal(x, out, (size_t)n * f->embd * sizeof *x);
    free(x);
    return out;
}

static void test_same_bits(void **state)
{
    static const struct way ways[] = {
        { true, 1, TERN_TILES_2BIT, MAX_ROWS, false, TERN_KV_F16 },
        { false, 2, TERN_TILES_2BIT, MAX_ROWS, false, TERN_KV_F16 },
        { true, 3, TERN_TILES_2BIT, 1, false, TERN_KV_F16 },
        { true, 2, TERN_TILES_5TRIT, 7, false, TERN_KV_F16 },
        { true, 3, TERN_TILES_2BIT, 64, true, TERN_KV_F16 },
        { true, 2, TERN_TILES_2BIT, MAX_ROWS, false, TERN_KV_INT8 },
        { false, 3, TERN_TILES_5TRIT, 7, true, TERN_KV_INT8 },
    };

    (void)state;
    for (size_t i = 0; i < N_FAMILIES; i++) {
        struct lab_file f = file_of(&families[i], 2);
        size_t bytes = rows_of(&families[i]) * families[i].embd * sizeof(float);
        float *first[TERN_N_KV_TYPES] = { NULL };

        for (size_t j = 0; j < sizeof ways / sizeof ways[0]; j++) {
            float *x = run_way(f.g, &ways[j], &families[i], 2), **of = &first[ways[j].kv];

            if (!*of)
                *of = x;
            else if (memcmp(*of, x, bytes) != 0)
                fail_msg("%s: other bits in way %zu", families[i].name, j);
            else
                free(x);
        }
        assert_memory_not_equal(first[TERN_KV_F16], first[TERN_KV_INT8], bytes);
        free(first[TERN_KV_F16]);
        free(first[TERN_KV_INT8]);
        lab_file_free(&f);
    }
}

/* -- the same in double ---------------------------------------------------------------------------------- */

#define MOST 8640 /* elements of a row */

struct plain {
    const struct family *f;
    const struct tern_gguf *g;
    double *k, *v; /* [n_rows][kv_heads * head_dim] */
};

static const struct tern_tensor *tensor(const struct plain *p, const char *name, const char *tail)
{
    char full[64];

    snprintf(full, sizeof full, "blk.0.%s%s", name, tail);
    return tern_gguf_tensor(p->g, full);
}

static void norm(const struct plain *p, const char *name, double *x, size_t n)
{
    const struct tern_tensor *t = tensor(p, name, ".weight");
    const float *w = (const float *)(const void *)t->data;
    double sum = 0;

    assert_int_equal(t->ne[0], n);
    for (size_t i = 0; i < n; i++)
        sum += x[i] * x[i];
    for (size_t i = 0; i < n; i++)
        x[i] *= (double)w[i] / sqrt(sum / (double)n + 1e-5);
}

/* y = the matrix times x as formats have it: int8 codes of the row. */
static void linear(const struct plain *p, const char *name, const double *x, size_t n, double *y)
{
    const struct tern_tensor *t = tensor(p, name, ".weight"), *own = tensor(p, name, ".scale");
    double most = 1e-5;
    float scale, factor = 1;
    int8_t *w = lab_read_ternary(t, &scale);

    assert_int_equal(t->ne[0], n);
    assert_int_equal(own != NULL, p->f->scales);
    if (own)
        memcpy(&factor, own->data, sizeof factor);
    for (size_t i = 0; i < n; i++)
        most = fabs(x[i]) > most ? fabs(x[i]) : most;
    for (size_t r = 0; r < t->ne[1]; r++) {
        double dot = 0;

        for (size_t i = 0; i < n; i++)
            dot += w[r * n + i] == 0 ? 0 : w[r * n + i] * rint(x[i] * (127 / most));
        y[r] = dot * most / 127 * (double)scale * (double)factor;
    }
    free(w);
}

static void turn(const struct plain *p, double *h, uint32_t pos)
{
    const struct tern_tensor *freqs = tern_gguf_tensor(p->g, "rope_freqs.weight");
    size_t hd = p->f->head_dim;

    for (size_t j = 0; j < hd / 2; j++) {
        size_t first = p->f->pairs ? 2 * j : j, second = p->f->pairs ? 2 * j + 1 : j + hd / 2;
        double angle = pos * pow(theta_of(p->f, 0), -2.0 * (double)j / (double)hd), a = h[first],
               b = h[second];

        if (p->f->freqs)
            angle /= (double)((const float *)(const void *)freqs->data)[j];
        h[first] = a * cos(angle) - b * sin(angle);
        h[second] = a * sin(angle) + b * cos(angle);
    }
}

static void attention(const struct plain *p, const double *q, uint32_t pos, double *out)
{
    size_t hd = p->f->head_dim, kv_dim = p->f->kv_heads * hd;
    uint32_t first = p->f->slides & 1 && pos >= WINDOW ? pos - WINDOW + 1 : 0;

    for (uint32_t h = 0; h < p->f->heads; h++) {
        size_t at = h / (p->f->heads / p->f->kv_heads) * hd;
        double score[MAX_ROWS], most = -INFINITY, sum = 0;

        memset(out + h * hd, 0, hd * sizeof *out);
        for (uint32_t i = first; i <= pos; i++) {
            score[i] = 0;
            for (size_t d = 0; d < hd; d++)
                score[i] += q[h * hd + d] * p->k[i * kv_dim + at + d] / sqrt((double)hd);
            most = score[i] > most ? score[i] : most;
        }
        for (uint32_t i = first; i <= pos; i++)
            sum += exp(score[i] - most);
        for (uint32_t i = first; i <= pos; i++)
            for (size_t d = 0; d < hd; d++)
                out[h * hd + d] += exp(score[i] - most) / sum * p->v[i * kv_dim + at + d];
    }
}

/* The matrix of x, behind its input norm if there is one. */
static void linear_in(const struct plain *p, const char *name, const char *norm_in, const double *x, size_t n,
                      double *y)
{
    static double in[MOST];

    memcpy(in, x, n * sizeof *in);
    if (p->f->input_norms)
        norm(p, norm_in, in, n);
    linear(p, name, in, n, y);
}

/* As the cache holds them. */
static void round_f16(double *x, size_t n)
{
    struct tern_kernels k;

    tern_kernels_init(&k, TERN_CPU_REF);
    for (size_t i = 0; i < n; i++) {
        float f = (float)x[i];
        uint16_t h;

        k.f32_to_f16(&f, 1, &h);
        k.f16_to_f32(&h, 1, &f);
        x[i] = (double)f;
    }
}

static void plain_attention(const struct plain *p, uint32_t pos, double *x)
{
    static double n[MOST], q[MOST], a[MOST], o[MOST];
    const struct family *f = p->f;
    size_t hd = f->head_dim, q_dim = f->heads * hd, kv_dim = f->kv_heads * hd;
    double *k = p->k + pos * kv_dim, *v = p->v + pos * kv_dim;

    memcpy(n, x, f->embd * sizeof *n);
    norm(p, "attn_norm", n, f->embd);
    linear_in(p, "attn_q", "attn_q_norm_in", n, f->embd, q);
    linear_in(p, "attn_k", "attn_k_norm_in", n, f->embd, k);
    linear_in(p, "attn_v", "attn_v_norm_in", n, f->embd, v);
    for (size_t h = 0; h < q_dim; h += hd) {
        if (f->qk_norms)
            norm(p, "attn_q_norm", q + h, hd);
        turn(p, q + h, pos);
    }
    for (size_t h = 0; h < kv_dim; h += hd) {
        if (f->qk_norms)
            norm(p, "attn_k_norm", k + h, hd);
        turn(p, k + h, pos);
    }
    round_f16(k, kv_dim);
    round_f16(v, kv_dim);
    attention(p, q, pos, a);
    if (f->sub_norms)
        norm(p, "attn_sub_norm", a, q_dim);
    linear_in(p, "attn_output", "attn_output_norm_in", a, q_dim, o);
    if (f->post_norms)
        norm(p, "post_attention_norm", o, f->embd);
    for (size_t i = 0; i < f->embd; i++)
        x[i] += o[i];
}

static double activation(char act, double x)
{
    if (act == 'r')
        return x > 0 ? x * x : 0;
    if (act == 's')
        return x / (1 + exp(-x));
    return 0.5 * x * (1 + tanh(0.7978845608 * x * (1 + 0.044715 * x * x)));
}

static void plain_ffn(const struct plain *p, double *x)
{
    static double n[MOST], gate[MOST], up[MOST], o[MOST];
    const struct family *f = p->f;

    memcpy(n, x, f->embd * sizeof *n);
    norm(p, "ffn_norm", n, f->embd);
    linear_in(p, "ffn_gate", "ffn_gate_norm_in", n, f->embd, gate);
    linear_in(p, "ffn_up", "ffn_up_norm_in", n, f->embd, up);
    for (size_t i = 0; i < f->ffn; i++)
        gate[i] = activation(f->act, gate[i]) * up[i];
    if (f->sub_norms)
        norm(p, "ffn_sub_norm", gate, f->ffn);
    linear_in(p, "ffn_down", "ffn_down_norm_in", gate, f->ffn, o);
    if (f->post_norms)
        norm(p, "post_ffw_norm", o, f->embd);
    for (size_t i = 0; i < f->embd; i++)
        x[i] += o[i];
}

static void test_near_double(void **state)
{
    const struct way w = { true, 2, TERN_TILES_2BIT, MAX_ROWS, false, TERN_KV_F16 };

    (void)state;
    for (size_t i = 0; i < N_FAMILIES; i++) {
        const struct family *fam = &families[i];
        struct lab_file f = file_of(fam, 1);
        size_t kv_dim = fam->kv_heads * fam->head_dim, d = fam->embd;
        struct plain p = { fam, f.g, calloc(MAX_ROWS * kv_dim, sizeof(double)),
                           calloc(MAX_ROWS * kv_dim, sizeof(double)) };
        const float *table = (const float *)(const void *)tern_gguf_tensor(f.g, "token_embd.weight")->data;
        float *got = run_way(f.g, &w, fam, 1);
        double error = 0, size = 0, x[256];

        for (uint32_t pos = 0; pos < rows_of(fam); pos++) {
            double in[256];

            for (size_t j = 0; j < d; j++)
                in[j] = x[j] =
                    (double)table[(size_t)token_at(pos) * d + j] * (fam->scaled ? sqrt((double)d) : 1.0);
            plain_attention(&p, pos, x);
            plain_ffn(&p, x);
            for (size_t j = 0; j < d; j++) { /* what the layer has added */
                double e = x[j] - (double)got[pos * d + j];

                error += e * e;
                size += (x[j] - in[j]) * (x[j] - in[j]);
            }
        }
        if (!(error < 1e-4 * size)) /* a code here and there is rounded the other way */
            fail_msg("%s: the layer's rows differ from those in double by %g of their size", fam->name,
                     sqrt(error / size));
        free(p.k);
        free(p.v);
        free(got);
        lab_file_free(&f);
    }
}

/* What a file of an embedding model says, and what is assumed when it does not. */
static void test_pooling(void **state)
{
    struct lab_file f = file_of(&families[5], 1);
    struct tern_arch arch;

    (void)state;
    assert_ok(tern_arch_read(f.g, &arch, &unit_err));
    assert_int_equal(arch.pooling, TERN_POOL_LAST);
    for (size_t i = 0; i < f.g->n_kv; i++) /* another key of the same length */
        if (tern_str_is(f.g->kv[i].key, "qwen3.pooling_type"))
            f.bytes[(const uint8_t *)f.g->kv[i].key.ptr - f.bytes + 6] = 'x';
    assert_ok(tern_arch_read(f.g, &arch, &unit_err));
    assert_int_equal(arch.pooling, TERN_POOL_MEAN);
    lab_file_free(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_same_bits),
        cmocka_unit_test(test_near_double),
        cmocka_unit_test(test_pooling),
    };

    tern_cpu_set_float_mode();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
