/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The AVX2 level (AVX2, FMA, F16C): the ternary products; the float ops are those of kernels_lanes.h.
 */
#include "kernels/kernels_avx2.h"
#include "kernels/kernels_avx2_probe.h"
#include "kernels/kernels_impl.h"
#include "kernels/kernels_lanes.h"
#include "kernels/kernels_lanes_attend.h"
#include "kernels/kernels_lanes_matvec.h"

#ifdef TERN_HAVE_LANES

/*
 * A 16-bit lane takes from one VPMADDUBSW at most 2 * 2 * 127 = 508 in absolute value (codes 0..2, q
 * -127..127).  Four of them a group of 16 columns, WIDEN groups: 16 * 4 * 508 = 32512 <= 32767.  Then the
 * lane is widened to 32 bits, where TERN_TERNARY_MAX_K * 2 * 127 = 33292288 fits.
 */
#define WIDEN 16

/* The largest number of activation rows that share the unpacked codes: 2 * GEMM_ROWS accumulators, codes and
 * masks fill the sixteen registers. */
#define GEMM_ROWS 4

INLINE __m256i broadcast4(const int8_t *q)
{
    int32_t four;
    memcpy(&four, q, sizeof four);
    return _mm256_set1_epi32(four);
}

/* At most WIDEN groups (64 bytes each) of a tile times n rows of q: dot[2 r] (tile rows 0..7) and dot[2 r +
 * 1] grow. */
INLINE void groups(const uint8_t *tile, size_t n_groups, const int8_t *q, size_t stride, const size_t n,
                   __m256i *dot)
{
    const __m256i low2 = _mm256_set1_epi8(3), ones = _mm256_set1_epi16(1);
    __m256i a[2 * GEMM_ROWS];
    for (size_t r = 0; r < 2 * n; r++)
        a[r] = _mm256_setzero_si256();
    for (size_t g = 0; g < n_groups; g++, tile += 64, q += TERN_TILE_COLS) {
        __m256i w0 = _mm256_load_si256((const __m256i *)tile);
        __m256i w1 = _mm256_load_si256((const __m256i *)(tile + 32));
#define STEP(shift)                                                                                          \
    do {                                                                                                     \
        __m256i c0 = _mm256_and_si256(_mm256_srli_epi16(w0, 2 * (shift)), low2);                             \
        __m256i c1 = _mm256_and_si256(_mm256_srli_epi16(w1, 2 * (shift)), low2);                             \
        for (size_t r = 0; r < n; r++) {                                                                     \
            __m256i x = broadcast4(q + r * stride + 4 * (shift));                                            \
            a[2 * r] = _mm256_add_epi16(a[2 * r], _mm256_maddubs_epi16(c0, x));                              \
            a[2 * r + 1] = _mm256_add_epi16(a[2 * r + 1], _mm256_maddubs_epi16(c1, x));                      \
            PIN(a[2 * r]);                                                                                   \
            PIN(a[2 * r + 1]);                                                                               \
        }                                                                                                    \
    } while (0)
        STEP(0);
        STEP(1);
        STEP(2);
        STEP(3);
#undef STEP
    }
    for (size_t r = 0; r < 2 * n; r++)
        dot[r] = _mm256_add_epi32(dot[r], _mm256_madd_epi16(a[r], ones));
}

/* y[0..n) = ((float)(dot - act_sum) / act_scale) * scale. */
INLINE void finish(const struct tern_ternary *t, size_t row, size_t out, __m256i lo, __m256i hi)
{
    __m256i sum = _mm256_set1_epi32(t->act_sum[row]);
    struct i16 dot = { _mm256_sub_epi32(lo, sum), _mm256_sub_epi32(hi, sum) };
    struct v16 y = mul16(div16(floats16(dot), set16(t->act_scale[row])), set16(t->scale));
    store16n(t->y + row * t->y_stride + out, y, t->m - out);
}

/* One tile times n rows of activations, from `row` on. */
INLINE void tile_rows(const struct tern_ternary *t, size_t tile, size_t row, const size_t n)
{
    const uint8_t *w = t->tiles + tile * 4 * t->k_pad;
    const int8_t *q = t->q + row * t->q_stride;
    __m256i dot[2 * GEMM_ROWS];
    for (size_t r = 0; r < 2 * n; r++)
        dot[r] = _mm256_setzero_si256();
    size_t left = t->k_pad / TERN_TILE_COLS;
    for (; left >= WIDEN; left -= WIDEN, w += 64 * WIDEN, q += TERN_TILE_COLS * WIDEN)
        groups(w, WIDEN, q, t->q_stride, n, dot);
    groups(w, left, q, t->q_stride, n, dot);
    for (size_t r = 0; r < n; r++)
        finish(t, row + r, tile * TERN_TILE_ROWS, dot[2 * r], dot[2 * r + 1]);
}

static void ternary(const struct tern_ternary *t, size_t tile_first, size_t tile_last)
{
    for (size_t tile = tile_first; tile < tile_last; tile++) {
        size_t row = 0;
        for (; row + GEMM_ROWS <= t->n_rows; row += GEMM_ROWS)
            tile_rows(t, tile, row, GEMM_ROWS);
        switch (t->n_rows - row) {
        case 3: tile_rows(t, tile, row, 3); break;
        case 2: tile_rows(t, tile, row, 2); break;
        case 1: tile_rows(t, tile, row, 1); break;
        default: break;
        }
    }
}

bool tern_kernels_init_avx2(struct tern_kernels *k)
{
    init_rows(k);
    init_attend(k);
    init_matvec(k);
    k->ternary[TERN_TILES_2BIT] = ternary;
    k->probe_read = probe_read;
    k->probe_dot = probe_dot;
    k->probe_dot_macs = PROBE_CHAINS * 32;
    return true;
}

#else

bool tern_kernels_init_avx2(struct tern_kernels *k)
{
    (void)k;
    return false;
}

#endif
