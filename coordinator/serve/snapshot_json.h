/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A running service as one JSON object: what GET /tern/cluster answers, what the page draws, and what
 * `tern status` and `tern top` show.  Times are microseconds of the coordinator's clock (tern_now_ns() /
 * 1000), as is its "now_us"; what is not known is null.
 */
#ifndef TERN_COORDINATOR_SERVE_SNAPSHOT_JSON_H
#define TERN_COORDINATOR_SERVE_SNAPSHOT_JSON_H

#include "coordinator/serve/service.h"

/* With `steps` also the steps numbered above `since`; all that are kept when that is a number this service
 * has not reached.  One line, [*len] and a NUL behind it, to be freed.  Any thread. */
enum tern_status snapshot_json(struct service *s, bool steps, uint64_t since, char **out, size_t *len,
                               struct tern_err *err) TERN_MUST_CHECK;

#endif
