/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The picture of a cluster as lines of text: head lines, a table with a row for each machine, the slots.
 *
 * The table has the columns that fit the width: those that tell least go first.
 */
#ifndef TERN_COORDINATOR_CLUSTER_TABLE_H
#define TERN_COORDINATOR_CLUSTER_TABLE_H

#include "coordinator/cluster_view.h"

#include <stdio.h>

#define CLUSTER_TABLE_ANY_WIDTH 0xffffu

/* Model, scheduler, rates, latencies, totals: 6 lines (7 when it is not ready), each at most `width` columns:
 * what would be cut is left out, so that no number loses its end. */
void cluster_table_head(const struct cluster_view *v, const char *server, unsigned width, FILE *to);
/* A line of headings, one for the coordinator, one for each worker; each at most `width` columns. */
void cluster_table_rows(const struct cluster_view *v, unsigned width, FILE *to);
/* A line for each slot in use. */
void cluster_table_slots(const struct cluster_view *v, FILE *to);

#endif
