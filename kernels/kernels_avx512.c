/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The AVX-512 level (F, BW, DQ, VL, VNNI): the ternary products of kernels_avx512_tiles.h; the float ops
 * are those of kernels_lanes.h.
 */
#include "kernels/kernels_avx512.h"
#include "kernels/kernels_avx512_screen.h"
#include "kernels/kernels_avx512_tiles.h"
#include "kernels/kernels_impl.h"
#include "kernels/kernels_lanes_all.h"

#ifdef TERN_HAVE_LANES

TERNARY(ternary_2bit, BITS)
TERNARY(ternary_5trit, TRITS)

/* -- the machine's limits -------------------------------------------------------------------------------- */

/* Hides from the compiler what is in a register. */
#ifdef TERN_SIMDE
#define OPAQUE(v) (void)(v)
#else
#define OPAQUE(v) __asm__("" : "+v"(v))
#endif

static uint32_t probe_read(const void *p, size_t bytes)
{
    const uint8_t *at = p, *end = at + bytes;
    __m512i a = _mm512_setzero_si512(), b = a, c = a, d = a, e = a, f = a, g = a, h = a;
    for (; at < end; at += 512) {
        a = _mm512_xor_si512(a, _mm512_load_si512((const void *)at));
        b = _mm512_xor_si512(b, _mm512_load_si512((const void *)(at + 64)));
        c = _mm512_xor_si512(c, _mm512_load_si512((const void *)(at + 128)));
        d = _mm512_xor_si512(d, _mm512_load_si512((const void *)(at + 192)));
        e = _mm512_xor_si512(e, _mm512_load_si512((const void *)(at + 256)));
        f = _mm512_xor_si512(f, _mm512_load_si512((const void *)(at + 320)));
        g = _mm512_xor_si512(g, _mm512_load_si512((const void *)(at + 384)));
        h = _mm512_xor_si512(h, _mm512_load_si512((const void *)(at + 448)));
    }
    a = _mm512_xor_si512(_mm512_xor_si512(a, b), _mm512_xor_si512(c, d));
    e = _mm512_xor_si512(_mm512_xor_si512(e, f), _mm512_xor_si512(g, h));
    uint32_t word[16], all = 0;
    _mm512_storeu_si512((void *)word, _mm512_xor_si512(a, e));
    for (size_t i = 0; i < 16; i++)
        all ^= word[i];
    return all;
}

/* Twelve sums: two VPDPBUSD a cycle that take five cycles each need ten. */
#define PROBE_SUMS 12

static uint32_t probe_dot(size_t n_steps)
{
    __m512i w = _mm512_set1_epi8(1), x = w;
    __m512i a = _mm512_setzero_si512(), b = a, c = a, d = a, e = a, f = a;
    __m512i g = a, h = a, i = a, j = a, k = a, l = a;
#define STEP(sum)                                                                                            \
    sum = _mm512_dpbusd_epi32(sum, w, x);                                                                    \
    OPAQUE(sum)
    for (; n_steps > 0; n_steps--) {
        STEP(a);
        STEP(b);
        STEP(c);
        STEP(d);
        STEP(e);
        STEP(f);
        STEP(g);
        STEP(h);
        STEP(i);
        STEP(j);
        STEP(k);
        STEP(l);
    }
#undef STEP
    a = _mm512_add_epi32(_mm512_add_epi32(a, b), _mm512_add_epi32(c, d));
    e = _mm512_add_epi32(_mm512_add_epi32(e, f), _mm512_add_epi32(g, h));
    i = _mm512_add_epi32(_mm512_add_epi32(i, j), _mm512_add_epi32(k, l));
    return (uint32_t)sumi16((struct i16){ _mm512_add_epi32(a, _mm512_add_epi32(e, i)) });
}

bool tern_kernels_init_avx512(struct tern_kernels *k)
{
    init_lanes(k);
    k->screen4 = screen4;
    k->ternary[TERN_TILES_2BIT] = ternary_2bit;
    k->ternary[TERN_TILES_5TRIT] = ternary_5trit;
    k->probe_read = probe_read;
    k->probe_dot = probe_dot;
    k->probe_dot_macs = PROBE_SUMS * 64;
    return true;
}

#else

bool tern_kernels_init_avx512(struct tern_kernels *k)
{
    (void)k;
    return false;
}

#endif
