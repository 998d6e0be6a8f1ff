/* SPDX-License-Identifier: Apache-2.0 */
/*
 * CPUID and XGETBV to levels, and the floating-point control register of the calling thread.
 *
 * Bits are named as in Intel's Software Developer's Manual, volume 2A, CPUID, and volume 1, 10.2.3 (MXCSR)
 * and 13.3 (XCR0); for ARM as in the Architecture Reference Manual, FPCR.
 */
#include "kernels/cpu.h"

#include <stddef.h>
#include <stdint.h>
#include <string.h>

static const char *const level_names[TERN_CPU_N_LEVELS] = { "ref", "avx2", "avx512" };

#if defined(__x86_64__)
#include <cpuid.h>
#include <immintrin.h>

/* Registers the operating system saves: SSE and AVX state; opmask and both halves of the ZMM state. */
#define XCR0_AVX    0x06u
#define XCR0_AVX512 0xe6u

#define LEAF1_ECX_FMA     (1u << 12)
#define LEAF1_ECX_OSXSAVE (1u << 27)
#define LEAF1_ECX_AVX     (1u << 28)
#define LEAF1_ECX_F16C    (1u << 29)

#define LEAF7_EBX_AVX2     (1u << 5)
#define LEAF7_EBX_BMI2     (1u << 8)
#define LEAF7_EBX_AVX512F  (1u << 16)
#define LEAF7_EBX_AVX512DQ (1u << 17)
#define LEAF7_EBX_AVX512BW (1u << 30)
#define LEAF7_EBX_AVX512VL (1u << 31)
#define LEAF7_ECX_VNNI     (1u << 11)

/* Rounding control, flush to zero, denormals are zero. */
#define MXCSR_RC  0x6000u
#define MXCSR_FTZ 0x8000u
#define MXCSR_DAZ 0x0040u

__attribute__((target("xsave"))) static uint64_t saved_state(void)
{
    return (uint64_t)_xgetbv(0);
}

static bool has_all(unsigned value, unsigned bits)
{
    return (value & bits) == bits;
}

enum tern_cpu_level tern_cpu_detect(void)
{
    unsigned a = 0, b = 0, c = 0, d = 0;
    if (!__get_cpuid_count(1, 0, &a, &b, &c, &d))
        return TERN_CPU_REF;
    if (!has_all(c, LEAF1_ECX_FMA | LEAF1_ECX_OSXSAVE | LEAF1_ECX_AVX | LEAF1_ECX_F16C))
        return TERN_CPU_REF;
    uint64_t xcr0 = saved_state();
    if ((xcr0 & XCR0_AVX) != XCR0_AVX)
        return TERN_CPU_REF;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || !has_all(b, LEAF7_EBX_AVX2 | LEAF7_EBX_BMI2))
        return TERN_CPU_REF;
    if (!has_all(b, LEAF7_EBX_AVX512F | LEAF7_EBX_AVX512DQ | LEAF7_EBX_AVX512BW | LEAF7_EBX_AVX512VL) ||
        !has_all(c, LEAF7_ECX_VNNI) || (xcr0 & XCR0_AVX512) != XCR0_AVX512)
        return TERN_CPU_AVX2;
    return TERN_CPU_AVX512;
}

void tern_cpu_set_float_mode(void)
{
    _mm_setcsr(_mm_getcsr() & ~(MXCSR_RC | MXCSR_FTZ | MXCSR_DAZ));
}

#else

enum tern_cpu_level tern_cpu_detect(void)
{
    return TERN_CPU_REF;
}

void tern_cpu_set_float_mode(void)
{
#if defined(__aarch64__)
    /* FZ16 (bit 19), RMode (bits 23..22), FZ (bit 24), DN (bit 25). */
    uint64_t fpcr;
    __asm__ volatile("mrs %0, fpcr" : "=r"(fpcr));
    fpcr &= ~((UINT64_C(1) << 19) | (UINT64_C(3) << 22) | (UINT64_C(3) << 24));
    __asm__ volatile("msr fpcr, %0" : : "r"(fpcr));
#endif
}

#endif

const char *tern_cpu_name(enum tern_cpu_level level)
{
    return (size_t)level < TERN_CPU_N_LEVELS ? level_names[level] : "unknown";
}

bool tern_cpu_by_name(const char *name, enum tern_cpu_level *out)
{
    for (size_t i = 0; i < TERN_CPU_N_LEVELS; i++) {
        if (strcmp(name, level_names[i]) == 0) {
            *out = (enum tern_cpu_level)i;
            return true;
        }
    }
    return false;
}
