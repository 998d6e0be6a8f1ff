/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which layout of ternary tiles this machine decodes faster from: measured, and remembered.
 *
 * Both layouts give the same bits.  The one of 1.6 bits reads a fifth less memory and computes more to unpack
 * it, so which is faster depends on the CPU, the level and how many threads share the memory.  On the
 * first use the kernels run over a buffer larger than the last cache, one row at a time as in decoding (in
 * a prompt, where many rows share each unpacked weight, the layouts hardly differ); the answer goes to
 * the cache folder (cache_file.h) under the CPU's name, its caches, the level, the number of threads and
 * the kernels of this build.
 *
 * Each process chooses for itself: nothing of it is seen outside.
 */
#ifndef TERN_ENGINE_LAYOUT_CHOICE_H
#define TERN_ENGINE_LAYOUT_CHOICE_H

#include "engine/pool.h"
#include "kernels/kernels.h"

/* What --layout asks for. */
enum tern_layout_wish { TERN_LAYOUT_AUTO, TERN_LAYOUT_2BIT, TERN_LAYOUT_5TRIT };

struct tern_layout_choice {
    enum tern_tile_layout layout;
    /* How it was found. */
    enum { TERN_LAYOUT_ASKED, TERN_LAYOUT_CACHED, TERN_LAYOUT_MEASURED, TERN_LAYOUT_NO_MEMORY } source;
    double rate[TERN_N_TILE_LAYOUTS]; /* weights per second of all threads together; 0: not measured */
};

/* Takes well under 0.1 s when it has to measure, and nothing otherwise.  With no memory for the buffer the
 * choice is 2 bits.  The pool must be idle and the machine should be. */
void tern_layout_choose(enum tern_layout_wish wish, const struct tern_kernels *kern, struct tern_pool *pool,
                        struct tern_layout_choice *out);

/* "asked for", "remembered", "measured", "no memory to measure". */
const char *tern_layout_source_name(const struct tern_layout_choice *c);

/* Logs the choice, with what was measured. */
void tern_layout_log(const struct tern_layout_choice *c);

#endif
