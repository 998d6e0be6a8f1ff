/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the CPU can do, as levels named after kinds of machine and not after single instructions.
 */
#ifndef TERN_KERNELS_CPU_H
#define TERN_KERNELS_CPU_H

#include <stdbool.h>

/*
 * A level implies every flag it needs, the operating system's support for its registers included, and all of
 * the level it stands on.
 */
enum tern_cpu_level {
    TERN_CPU_REF,        /* plain C: the definition */
    TERN_CPU_AVX2,       /* AVX2, FMA, F16C, BMI2 */
    TERN_CPU_AVXVNNI,    /* AVX2 with AVX-VNNI */
    TERN_CPU_AVX512,     /* AVX2 with AVX-512 F, BW, DQ, VL, VNNI */
    TERN_CPU_AVX512VBMI, /* AVX512 with VBMI */
    TERN_CPU_NEON,       /* ARMv8-A AdvSIMD */
    TERN_CPU_DOTPROD,    /* NEON with SDOT and UDOT (ARMv8.2) */
    TERN_CPU_I8MM,       /* DOTPROD with USDOT and SMMLA (ARMv8.6) */
    TERN_CPU_N_LEVELS
};

/* The best level this machine can run.  Reads CPUID and XGETBV, or the kernel's hardware flags; no state. */
enum tern_cpu_level tern_cpu_detect(void);

/* True when this machine can run `level`. */
bool tern_cpu_supports(enum tern_cpu_level level);

/* The level whose ops `level` keeps where it has none of its own; TERN_CPU_REF stands on itself. */
enum tern_cpu_level tern_cpu_below(enum tern_cpu_level level);

/* "ref", "avx2", "avxvnni", "avx512", "avx512vbmi", "neon", "dotprod", "i8mm". */
const char *tern_cpu_name(enum tern_cpu_level level);

/* False when the name is unknown. */
bool tern_cpu_by_name(const char *name, enum tern_cpu_level *out);

/*
 * Puts the calling thread's floating-point control in the state the arithmetic contract asks for: round to
 * nearest, no flush to zero, no denormals-are-zero.  Every thread that computes calls it once.
 */
void tern_cpu_set_float_mode(void);

#endif
