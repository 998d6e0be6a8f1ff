/* SPDX-License-Identifier: Apache-2.0 */
/*
 * All that is written over the lanes, for a level that has just included its verbs; see kernels_lanes.h.
 */
#ifndef TERN_KERNELS_LANES_ALL_H
#define TERN_KERNELS_LANES_ALL_H

#include "kernels/kernels_lanes.h"
#include "kernels/kernels_lanes_attend.h"
#include "kernels/kernels_lanes_largest.h"
#include "kernels/kernels_lanes_matvec.h"
#include "kernels/kernels_lanes_screen.h"

#ifdef TERN_HAVE_LANES

static void init_lanes(struct tern_kernels *k)
{
    init_rows(k);
    init_attend(k);
    init_largest(k);
    init_matvec(k);
    init_screen(k);
}

#endif
#endif
