/* SPDX-License-Identifier: Apache-2.0 */
/*
 * When each stage computed in the last seconds, drawn as a lane of text: a cell is a stretch of time, its
 * glyph how much of that was work.
 *
 * Work is gathered in bins of 10 ms, so that a lane costs the same however many steps there were.
 */
#ifndef TERN_COORDINATOR_CLUSTER_LANES_H
#define TERN_COORDINATOR_CLUSTER_LANES_H

#include "engine/base/limits.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#define CLUSTER_LANES_SECONDS 40 /* that are remembered */

struct cluster_lanes;

/* NULL: no memory. */
struct cluster_lanes *cluster_lanes_new(void);
void cluster_lanes_free(struct cluster_lanes **l);

/* Adds the steps of an object of /tern/cluster, whatever it holds; returns the greatest number of a step seen
 * so far.  A server that has been started anew empties the lanes. */
uint64_t cluster_lanes_add(struct cluster_lanes *l, const json_t *root);

/* One lane: i = 0 the coordinator's head, then the stages; `seconds` until `now_us`, in `cells`
 * characters. */
void cluster_lanes_draw(const struct cluster_lanes *l, uint32_t i, double now_us, unsigned seconds,
                        unsigned cells, bool utf8, FILE *to);

#endif
