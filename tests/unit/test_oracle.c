/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tiny models of every family, in every kind of file, against an oracle by another hand (tests/oracle): a
 * test for each file.
 *
 * Layer by layer, fed the oracle's input.  What is quantised in a layer is compared with the oracle's codes
 * and then replaced by them, so that a code that rounds the other way does not spoil those behind it: at most
 * one in a thousand differs, by one, and with these codes the layer's output is the oracle's within 1e-5.
 * Attention, norms, RoPE and activations show in the codes, which are 127 to the largest of a row; matrices,
 * their scales and the additions in the output.
 *
 * End to end codes do part and cascade, which random weights amplify, so the limits are wide there: logits
 * within 5 % of their spread, nine first choices of ten equal and the others close in the oracle, too.  A
 * wrong norm, activation or angle is off by several times as much.
 *
 * All files of a model mean the same numbers, so their logits are equal to the bit; where a TQ type rounds
 * the scales, they are held to the limits alone.
 */
#include "unit/golden_file.h"
#include "unit/unit.h"

#include "coordinator/session.h"
#include "engine/forward.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MANIFEST  TERN_ORACLE_DIR "/manifest.json"
#define MAX_CASES 256

struct family {
    const char *name, *digest;
    struct golden golden;
    float *logits;    /* [n_ids][n_vocab] of the first of its files, or NULL */
    const char *from; /* that file */
};

struct file_case {
    char title[96];
    struct family *family;
    const json_t *file;
    bool exact; /* its numbers are the model's to the bit */
};

/* -- opening --------------------------------------------------------------------------------------------- */

static void read_tiles(const json_t *tiles, struct tern_file_options *o)
{
    const json_t *row;
    size_t i;

    json_array_foreach(tiles, i, row)
    {
        struct tern_tl_tiles *t = &o->tl_tiles[o->n_tl_tiles++];

        assert_true(o->n_tl_tiles <= TERN_MAX_TL_TILES);
        t->m = (uint32_t)json_integer_value(json_array_get(row, 0));
        t->k = (uint32_t)json_integer_value(json_array_get(row, 1));
        t->bm = (uint32_t)json_integer_value(json_array_get(row, 2));
        t->by = (uint32_t)json_integer_value(json_array_get(row, 3));
        t->strip = (uint32_t)json_integer_value(json_array_get(row, 4));
    }
}

static void choose_options(const struct file_case *c, struct engine_options *o)
{
    engine_options_default(o);
    snprintf(o->model, sizeof o->model, "%s", json_string_value(json_object_get(c->file, "path")));
    o->wire = TERN_BOUNDARY_F32;
    o->ctx = c->family->golden.n_ids;
    o->threads = 2;
    o->cpu = tern_cpu_detect();
    o->quiet = true;
    switch (*json_string_value(json_object_get(c->file, "i2s_layout"))) {
    case 'B': o->file.i2s_layout = TERN_I2S_B; break;
    case 'C': o->file.i2s_layout = TERN_I2S_C; break;
    default: o->file.i2s_layout = TERN_I2S_A; break;
    }
    read_tiles(json_object_get(c->file, "tiles"), &o->file);
}

/* -- layer by layer -------------------------------------------------------------------------------------- */

/* Where the kernel's quantiser is replaced by one that compares: one layer, one thread. */
static struct {
    float (*quantize)(const float *x, size_t k, size_t k_pad, int8_t *q, int32_t *sum);
    const struct golden *golden;
    const struct golden_site *sites; /* of the layer */
    bool seen[GOLDEN_SITES][64];     /* [site][row] */
    size_t n_seen, codes, differ, strangers;
    int worst;          /* difference of a code */
    double worst_scale; /* relative */
} compare;

static size_t count_differences(const int8_t *a, const int8_t *b, size_t n, int *worst)
{
    size_t differ = 0;

    for (size_t i = 0; i < n; i++) {
        int d = abs(a[i] - b[i]);

        differ += d != 0;
        if (d > *worst)
            *worst = d;
    }
    return differ;
}

/* Which of the oracle's rows this is, is told by likeness: in what order a layer asks is its own affair, and
 * rows of different inputs have next to nothing in common. */
static float compare_quantize(const float *x, size_t k, size_t k_pad, int8_t *q, int32_t *sum)
{
    const float s = compare.quantize(x, k, k_pad, q, sum);
    const struct golden_site *best = NULL;
    size_t best_row = 0, least = k + 1;
    const int8_t *codes;
    int worst = 0;

    for (size_t i = 0; i < compare.golden->n_sites; i++)
        for (size_t row = 0; compare.sites[i].width == k && row < compare.golden->n_rows; row++) {
            size_t differ = count_differences(q, compare.sites[i].codes + row * k, k, &(int){ 0 });

            if (!compare.seen[i][row] && differ < least) {
                least = differ;
                best = &compare.sites[i];
                best_row = row;
            }
        }
    if (!best) {
        compare.strangers++;
        return s;
    }
    codes = best->codes + best_row * k;
    compare.seen[best - compare.sites][best_row] = true;
    compare.n_seen++;
    compare.codes += k;
    compare.differ += count_differences(q, codes, k, &worst);
    compare.worst = worst > compare.worst ? worst : compare.worst;
    compare.worst_scale = fmax(compare.worst_scale, fabs((double)s / (double)best->scales[best_row] - 1));
    memcpy(q, codes, k);
    *sum = 0;
    for (size_t i = 0; i < k; i++)
        *sum += codes[i];
    return best->scales[best_row];
}

/* Largest distance of a row from the oracle's, relative to its length. */
static double worst_row(const float *x, const float *want, size_t n_rows, size_t n)
{
    double worst = 0;

    for (size_t r = 0; r < n_rows; r++) {
        double off = 0, size = 0;

        for (size_t i = 0; i < n; i++) {
            double d = (double)x[r * n + i] - (double)want[r * n + i];

            off += d * d;
            size += (double)want[r * n + i] * (double)want[r * n + i];
        }
        worst = fmax(worst, sqrt(off / size));
    }
    return worst;
}

static void run_layer(const struct session *s, const struct golden *g, uint32_t i, struct tern_pool *pool,
                      float *x, uint8_t *out)
{
    struct tern_model_options mo = { .first = i, .last = i + 1 };
    struct tern_kernels kern = s->kern;
    const uint32_t pages[1] = { 0 }, few = 2;
    struct tern_model *slice;
    struct tern_scratch *scratch;
    struct tern_kv_store kv;
    struct tern_row rows[TERN_PAGE];

    compare.quantize = kern.quantize;
    kern.quantize = compare_quantize;
    assert_ok(tern_model_load(s->gguf, &s->arch, &kern, pool, &mo, &slice, &unit_err));
    assert_ok(tern_scratch_new(&s->arch, g->n_rows, 1, &scratch, &unit_err));
    assert_ok(tern_kv_store_new(TERN_KV_F16, 1, 1, s->arch.n_kv_heads, s->arch.head_dim, &kv, &unit_err));
    for (uint32_t r = 0; r < g->n_rows; r++)
        rows[r] = (struct tern_row){ pages, r, 0 };
    /* In two steps, for few rows and many go different ways. */
    tern_forward_layers(slice, pool, scratch, &kv, TERN_BOUNDARY_F32, rows, few, x, out);
    tern_forward_layers(slice, pool, scratch, &kv, TERN_BOUNDARY_F32, rows + few, g->n_rows - few,
                        x + (size_t)few * g->n_embd, out);
    for (uint32_t r = 0; r < g->n_rows; r++)
        assert_int_equal(rows[r].dead, 0);
    tern_kv_store_free(&kv);
    tern_scratch_free(&scratch);
    tern_model_free(&slice);
}

/* What compare has seen of a layer, and how far off its output is. */
static bool is_right(const struct golden *g, double off)
{
    return compare.strangers == 0 && compare.n_seen == g->n_sites * g->n_rows &&
           compare.differ * 1000 <= compare.codes && compare.worst <= 1 && compare.worst_scale < 1e-5 &&
           off <= 1e-5;
}

/* All layers, each fed the oracle's input: how many are right.  Says of each how far off it is if it has a
 * title. */
static uint32_t count_right(const struct session *s, const struct golden *g, const char *title)
{
    const size_t state = (size_t)g->n_rows * g->n_embd;
    float *x = calloc(state, sizeof *x);
    uint8_t *out = calloc(g->n_rows, tern_boundary_row_bytes(TERN_BOUNDARY_F32, g->n_embd));
    struct tern_pool *pool;
    uint32_t right = 0;

    assert_true(x && out && g->n_rows <= TERN_PAGE && g->n_layers == s->arch.n_layers);
    assert_ok(tern_pool_new(1, &pool, &unit_err));
    for (uint32_t i = 0; i < g->n_layers; i++) {
        double off;

        memset(&compare, 0, sizeof compare);
        compare.golden = g;
        compare.sites = g->sites + (size_t)i * g->n_sites;
        memcpy(x, g->x + i * state, state * sizeof *x);
        run_layer(s, g, i, pool, x, out);
        off = worst_row(x, g->x + (i + 1) * state, g->n_rows, g->n_embd);
        right += is_right(g, off);
        if (title)
            print_message("%s, layer %u: %zu of %zu codes differ, by %d at most; scales within %.1g; output "
                          "within %.1g\n",
                          title, (unsigned)i, compare.differ, compare.codes, compare.worst,
                          compare.worst_scale, off);
    }
    tern_pool_free(&pool);
    free(x);
    free(out);
    return right;
}

static void check_embeddings(const struct session *s, const struct golden *g)
{
    float *x = calloc((size_t)g->n_rows * g->n_embd, sizeof *x);
    double off;

    assert_non_null(x);
    tern_forward_embed(s->model, g->ids, g->n_rows, x);
    off = worst_row(x, g->x, g->n_rows, g->n_embd);
    free(x);
    if (off > 1e-6)
        fail_msg("embeddings are %.2g off", off);
}

/* The comparison can fail: a model that is a little another one does not pass for this one. */
static void check_power(struct session *s, const struct golden *g)
{
    const struct tern_arch own = s->arch;

    s->arch.rope_theta *= 1.1;
    assert_true(count_right(s, g, NULL) < g->n_layers);
    s->arch = own;
    s->arch.rms_eps *= 10;
    assert_true(count_right(s, g, NULL) < g->n_layers);
    s->arch = own;
    s->arch.activation = own.activation == TERN_SILU ? TERN_GELU : TERN_SILU;
    assert_true(count_right(s, g, NULL) < g->n_layers);
    s->arch = own;
    s->arch.rope = own.rope == TERN_ROPE_NEOX ? TERN_ROPE_NORM : TERN_ROPE_NEOX;
    assert_true(count_right(s, g, NULL) < g->n_layers);
    s->arch = own;
    if (own.swa.window) {
        s->arch.swa.window++;
        assert_true(count_right(s, g, NULL) < g->n_layers);
        s->arch = own;
        s->arch.swa.rope_theta *= 1.1;
        assert_true(count_right(s, g, NULL) < g->n_layers);
        s->arch = own;
        s->arch.swa.layers[0] ^= 1;
        assert_true(count_right(s, g, NULL) < g->n_layers);
        s->arch = own;
    }
}

/* -- end to end ------------------------------------------------------------------------------------------ */

struct forced {
    float *logits; /* [n_ids][n_vocab] */
    uint32_t n_ids, n_vocab, n_got;
};

static void on_logits(struct seq *q, uint32_t pos, const struct tern_head_row *row)
{
    struct forced *f = q->user;

    assert_true(pos < f->n_ids && row->logits);
    memcpy(f->logits + (size_t)pos * f->n_vocab, row->logits, f->n_vocab * sizeof *f->logits);
    f->n_got++;
    if (pos + 1 == f->n_ids)
        seq_finish(q);
}

static float *teacher_force(struct session *s, const struct golden *g)
{
    struct forced f = { calloc((size_t)g->n_ids * g->n_vocab, sizeof(float)), g->n_ids, g->n_vocab, 0 };
    enum tern_status st;
    struct seq q;

    assert_non_null(f.logits);
    assert_int_equal(s->arch.n_vocab, g->n_vocab);
    assert_ok(session_connect(s, &(struct session_room){ .n_at_once = 1, .max_len = g->n_ids }, &unit_err));
    assert_ok(seq_init(&q, g->ids, g->n_ids, g->n_ids, &unit_err));
    q.want_from = 0;
    q.on_logits = on_logits;
    q.user = &f;
    assert_ok(sched_add(s->sched, &q, &unit_err));
    while ((st = sched_turn(s->sched, 1000, &unit_err)) == TERN_OK || st == TERN_AGAIN)
        ;
    assert_int_equal(st, TERN_END);
    assert_false(q.failed);
    assert_int_equal(f.n_got, g->n_ids);
    sched_forget(s->sched, &q);
    seq_fini(&q);
    return f.logits;
}

static void check_logits(const struct session *s, const struct file_case *c, const float *logits)
{
    const struct golden *g = &c->family->golden;
    const size_t n = g->n_vocab;
    float *want = calloc(n, sizeof *want);
    double sum = 0, worst = 0, rms;
    size_t same = 0, count = 0;

    assert_non_null(want);
    for (uint32_t pos = 0; pos < g->n_ids; pos++) {
        const float *row = logits + pos * n;
        size_t best = 0;

        for (size_t i = 1; i < n; i++)
            best = row[i] > row[best] ? i : best;
        same += best == (size_t)g->first[pos];
        if (best != (size_t)g->first[pos])
            worst = fmax(worst, (double)(g->margin[pos] / g->spread));
        if (pos % g->logits_every)
            continue;
        s->kern.f16_to_f32(g->logits + pos / g->logits_every * n, n, want);
        for (size_t i = 0; i < n; i++, count++)
            sum += ((double)row[i] - (double)want[i]) * ((double)row[i] - (double)want[i]);
    }
    free(want);
    rms = sqrt(sum / (double)count) / (double)g->spread;
    print_message("%s: logits %.2f %% of their spread off, %zu of %u first choices equal, the others within "
                  "%.2f of the spread\n",
                  c->title, 100 * rms, same, (unsigned)g->n_ids, worst);
    assert_true(rms <= 0.05);
    assert_true(same * 10 >= (size_t)g->n_ids * 9);
    assert_true(worst <= 0.3);
}

/* -- the tests ------------------------------------------------------------------------------------------- */

static void open_golden(struct family *f)
{
    char path[512];

    if (f->golden.bytes)
        return;
    snprintf(path, sizeof path, "%s/tests/golden/oracle/%s.golden", TERN_SOURCE_DIR, f->name);
    golden_open(path, &f->golden);
    for (size_t i = 0; i < 32; i++) {
        unsigned byte = 0;

        assert_int_equal(sscanf(f->digest + 2 * i, "%2x", &byte), 1);
        if (byte != f->golden.digest[i])
            fail_msg("%s was computed of other weights: see tests/oracle/README.md", path);
    }
}

static void test_file(void **state)
{
    struct file_case *c = *state;
    struct engine_options o;
    struct session *s;
    float *logits;

    open_golden(c->family);
    choose_options(c, &o);
    assert_ok(session_open(&o, &s, &unit_err));
    check_embeddings(s, &c->family->golden);
    if (c->exact)
        assert_int_equal(count_right(s, &c->family->golden, c->title), s->arch.n_layers);
    if (!c->family->logits)
        check_power(s, &c->family->golden);
    logits = teacher_force(s, &c->family->golden);
    check_logits(s, c, logits);
    session_close(&s);
    if (!c->exact) {
        free(logits);
    } else if (!c->family->logits) {
        c->family->logits = logits;
        c->family->from = json_string_value(json_object_get(c->file, "name"));
    } else {
        size_t n = (size_t)c->family->golden.n_ids * c->family->golden.n_vocab;
        bool equal = memcmp(logits, c->family->logits, n * sizeof *logits) == 0;

        free(logits);
        if (!equal)
            fail_msg("%s: other bits than of %s", c->title, c->family->from);
    }
}

static size_t list_cases(const json_t *manifest, struct family **families, struct file_case *cases)
{
    const json_t *models = json_object_get(manifest, "models"), *model, *file;
    struct family *all = calloc(json_array_size(models), sizeof *all);
    size_t n = 0, i, j;

    if (!all)
        return 0;
    *families = all;
    json_array_foreach(models, i, model)
    {
        all[i].name = json_string_value(json_object_get(model, "name"));
        all[i].digest = json_string_value(json_object_get(model, "digest"));
        json_array_foreach(json_object_get(model, "files"), j, file)
        {
            struct file_case *c = &cases[n];

            if (n == MAX_CASES)
                return n;
            c->family = &all[i];
            c->file = file;
            c->exact = json_is_true(json_object_get(file, "exact"));
            snprintf(c->title, sizeof c->title, "%s %s", all[i].name,
                     json_string_value(json_object_get(file, "name")));
            n++;
        }
    }
    return n;
}

int main(void)
{
    static struct file_case cases[MAX_CASES];
    static struct CMUnitTest tests[MAX_CASES];
    struct family *families = NULL;
    json_error_t e;
    json_t *manifest = json_load_file(MANIFEST, 0, &e);
    size_t n;
    int rc;

    tern_cpu_set_float_mode();
    if (!manifest) {
        fprintf(stderr, "%s: %s; tests/oracle/make.py makes it\n", MANIFEST, e.text);
        return 1;
    }
    n = list_cases(manifest, &families, cases);
    for (size_t i = 0; i < n; i++)
        tests[i] = (struct CMUnitTest){ cases[i].title, test_file, NULL, NULL, &cases[i] };
    rc = n ? _cmocka_run_group_tests("oracle", tests, n, NULL, NULL) : 1;
    for (size_t i = 0; i < json_array_size(json_object_get(manifest, "models")); i++) {
        golden_close(&families[i].golden);
        free(families[i].logits);
    }
    free(families);
    json_decref(manifest);
    return rc;
}
