/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Values of options that `tern` and `ternd` both take, and their defaults.
 *
 * `option` is the name as the user wrote it ("-t", "--memory"); it opens the sentence of an error.  Outputs
 * are untouched on failure.
 */
#ifndef TERN_ENGINE_OPTION_H
#define TERN_ENGINE_OPTION_H

#include "engine/base/status.h"
#include "engine/kv.h"
#include "engine/layout_choice.h"
#include "kernels/cpu.h"
#include "kernels/pack.h"

#include <stddef.h>
#include <stdint.h>

#define TERN_MAX_THREADS 256 /* of one process; more never helped what is bound by memory */

/* A whole number in [min, max], decimal digits and nothing else. */
enum tern_status tern_option_u64(const char *option, const char *text, uint64_t min, uint64_t max,
                                 uint64_t *out, struct tern_err *err) TERN_MUST_CHECK;
enum tern_status tern_option_u32(const char *option, const char *text, uint32_t min, uint32_t max,
                                 uint32_t *out, struct tern_err *err) TERN_MUST_CHECK;
/* "500M", "2G", "1073741824": bytes, more than none. */
enum tern_status tern_option_bytes(const char *option, const char *text, uint64_t *out,
                                   struct tern_err *err) TERN_MUST_CHECK;
/* --cpu: a level that this machine can run. */
enum tern_status tern_option_cpu(const char *text, enum tern_cpu_level *out,
                                 struct tern_err *err) TERN_MUST_CHECK;
/* --i2s-layout: A, B or C, in either case. */
enum tern_status tern_option_i2s(const char *text, enum tern_i2s_layout *out,
                                 struct tern_err *err) TERN_MUST_CHECK;

/* --layout: auto, 2bit or 1.6bit. */
enum tern_status tern_option_layout(const char *text, enum tern_layout_wish *out,
                                    struct tern_err *err) TERN_MUST_CHECK;

/* --layers: "3-7" or "3", both ends included, of a model with n_layers that errors call `whose`; becomes
 * [*first, *last). */
enum tern_status tern_option_layers(const char *text, const char *whose, uint32_t n_layers, uint32_t *first,
                                    uint32_t *last, struct tern_err *err) TERN_MUST_CHECK;

/* --kv: f16 or int8. */
enum tern_status tern_option_kv(const char *text, enum tern_kv_type *out,
                                struct tern_err *err) TERN_MUST_CHECK;

/* The model when none was named: $TERN_MODEL, else the fable model beside the program, installed or in the
 * source tree.  `option` is what the sentence tells the user to give instead. */
enum tern_status tern_option_default_model(const char *option, char *path, size_t cap,
                                           struct tern_err *err) TERN_MUST_CHECK;
/* The CPUs this process may use. */
unsigned tern_option_default_threads(void);

#endif
