/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the CPU can do, as levels named after kinds of machine and not after single instructions.
 */
#ifndef TERN_KERNELS_CPU_H
#define TERN_KERNELS_CPU_H

#include <stdbool.h>

/* A level implies every flag it needs, the operating system's support for its registers included. */
enum tern_cpu_level {
    TERN_CPU_REF = 0,    /* plain C: the definition */
    TERN_CPU_AVX2 = 1,   /* AVX2, FMA, F16C, BMI2 */
    TERN_CPU_AVX512 = 2, /* AVX-512 F, BW, DQ, VL, VNNI, besides the level below */
    TERN_CPU_N_LEVELS
};

/* The highest level this machine can run.  Reads CPUID and XGETBV; no state. */
enum tern_cpu_level tern_cpu_detect(void);

/* "ref", "avx2", "avx512". */
const char *tern_cpu_name(enum tern_cpu_level level);

/* False when the name is unknown. */
bool tern_cpu_by_name(const char *name, enum tern_cpu_level *out);

/*
 * Puts the calling thread's floating-point control in the state the arithmetic contract asks for: round to
 * nearest, no flush to zero, no denormals-are-zero.  Every thread that computes calls it once.
 */
void tern_cpu_set_float_mode(void);

#endif
