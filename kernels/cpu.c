/* SPDX-License-Identifier: Apache-2.0 */
/*
 * CPUID and XGETBV, or the hardware flags of Linux, to levels, and the floating-point control register of the
 * calling thread.
 *
 * Bits are named as in Intel's Software Developer's Manual, volume 2A, CPUID, and volume 1, 10.2.3 (MXCSR)
 * and 13.3 (XCR0); for ARM as in Linux's arch/arm64/include/uapi/asm/hwcap.h and the Architecture Reference
 * Manual, FPCR.
 */
#include "kernels/cpu.h"

#include <stddef.h>
#include <stdint.h>
#include <string.h>

static const struct {
    const char *name;
    enum tern_cpu_level below;
} levels[TERN_CPU_N_LEVELS] = {
    [TERN_CPU_REF] = { "ref", TERN_CPU_REF },
    [TERN_CPU_AVX2] = { "avx2", TERN_CPU_REF },
    [TERN_CPU_AVXVNNI] = { "avxvnni", TERN_CPU_AVX2 },
    [TERN_CPU_AVX512] = { "avx512", TERN_CPU_AVX2 },
    [TERN_CPU_AVX512VBMI] = { "avx512vbmi", TERN_CPU_AVX512 },
    [TERN_CPU_NEON] = { "neon", TERN_CPU_REF },
    [TERN_CPU_DOTPROD] = { "dotprod", TERN_CPU_NEON },
    [TERN_CPU_I8MM] = { "i8mm", TERN_CPU_DOTPROD },
};

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
#define LEAF7_ECX_VBMI     (1u << 1)
#define LEAF7_ECX_VNNI     (1u << 11)

#define LEAF7_1_EAX_AVXVNNI (1u << 4)

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

static bool supports_avx2(void)
{
    unsigned a = 0, b = 0, c = 0, d = 0;
    if (!__get_cpuid_count(1, 0, &a, &b, &c, &d) ||
        !has_all(c, LEAF1_ECX_FMA | LEAF1_ECX_OSXSAVE | LEAF1_ECX_AVX | LEAF1_ECX_F16C))
        return false;
    return (saved_state() & XCR0_AVX) == XCR0_AVX && __get_cpuid_count(7, 0, &a, &b, &c, &d) &&
           has_all(b, LEAF7_EBX_AVX2 | LEAF7_EBX_BMI2);
}

/* All that follow are asked only where supports_avx2(). */
static bool supports_avxvnni(void)
{
    unsigned a = 0, b = 0, c = 0, d = 0;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || a < 1) /* the highest subleaf */
        return false;
    return __get_cpuid_count(7, 1, &a, &b, &c, &d) && has_all(a, LEAF7_1_EAX_AVXVNNI);
}

static bool supports_avx512(unsigned leaf7_ecx)
{
    unsigned a = 0, b = 0, c = 0, d = 0;
    return (saved_state() & XCR0_AVX512) == XCR0_AVX512 && __get_cpuid_count(7, 0, &a, &b, &c, &d) &&
           has_all(b, LEAF7_EBX_AVX512F | LEAF7_EBX_AVX512DQ | LEAF7_EBX_AVX512BW | LEAF7_EBX_AVX512VL) &&
           has_all(c, leaf7_ecx);
}

bool tern_cpu_supports(enum tern_cpu_level level)
{
    switch (level) {
    case TERN_CPU_REF: return true;
    case TERN_CPU_AVX2: return supports_avx2();
    case TERN_CPU_AVXVNNI: return supports_avx2() && supports_avxvnni();
    case TERN_CPU_AVX512: return supports_avx2() && supports_avx512(LEAF7_ECX_VNNI);
    case TERN_CPU_AVX512VBMI: return supports_avx2() && supports_avx512(LEAF7_ECX_VNNI | LEAF7_ECX_VBMI);
    default: return false;
    }
}

void tern_cpu_set_float_mode(void)
{
    _mm_setcsr(_mm_getcsr() & ~(MXCSR_RC | MXCSR_FTZ | MXCSR_DAZ));
}

#elif defined(__aarch64__)
#include <sys/auxv.h>

#define CAP_ASIMD   (1UL << 1)
#define CAP_ASIMDDP (1UL << 20)
#define CAP2_I8MM   (1UL << 13)

/* Flush to zero of halves, rounding mode, flush to zero, default NaN, alternative half precision. */
#define FPCR_FZ16   (UINT64_C(1) << 19)
#define FPCR_RMODE  (UINT64_C(3) << 22)
#define FPCR_FZ     (UINT64_C(1) << 24)
#define FPCR_DN     (UINT64_C(1) << 25)
#define FPCR_AHP    (UINT64_C(1) << 26)

static bool supports_neon(void)
{
    return (getauxval(AT_HWCAP) & CAP_ASIMD) != 0;
}

static bool supports_dotprod(void)
{
    return supports_neon() && (getauxval(AT_HWCAP) & CAP_ASIMDDP) != 0;
}

bool tern_cpu_supports(enum tern_cpu_level level)
{
    switch (level) {
    case TERN_CPU_REF: return true;
    case TERN_CPU_NEON: return supports_neon();
    case TERN_CPU_DOTPROD: return supports_dotprod();
    case TERN_CPU_I8MM: return supports_dotprod() && (getauxval(AT_HWCAP2) & CAP2_I8MM) != 0;
    default: return false;
    }
}

void tern_cpu_set_float_mode(void)
{
    uint64_t fpcr;
    __asm__ volatile("mrs %0, fpcr" : "=r"(fpcr));
    fpcr &= ~(FPCR_FZ16 | FPCR_RMODE | FPCR_FZ | FPCR_DN | FPCR_AHP);
    __asm__ volatile("msr fpcr, %0" : : "r"(fpcr));
}

#else

bool tern_cpu_supports(enum tern_cpu_level level)
{
    return level == TERN_CPU_REF;
}

void tern_cpu_set_float_mode(void) {}

#endif

enum tern_cpu_level tern_cpu_detect(void)
{
    enum tern_cpu_level best = TERN_CPU_REF;
    for (int l = 0; l < TERN_CPU_N_LEVELS; l++)
        best = tern_cpu_supports((enum tern_cpu_level)l) ? (enum tern_cpu_level)l : best;
    return best;
}

enum tern_cpu_level tern_cpu_below(enum tern_cpu_level level)
{
    return levels[level].below;
}

const char *tern_cpu_name(enum tern_cpu_level level)
{
    return (size_t)level < TERN_CPU_N_LEVELS ? levels[level].name : "unknown";
}

bool tern_cpu_by_name(const char *name, enum tern_cpu_level *out)
{
    for (size_t i = 0; i < TERN_CPU_N_LEVELS; i++) {
        if (strcmp(name, levels[i].name) == 0) {
            *out = (enum tern_cpu_level)i;
            return true;
        }
    }
    return false;
}
