/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A snapshot as Prometheus reads it: the text format 0.0.4, base units, one family after the other.
 *
 * Names begin with tern_; those of llama-server that mean something here follow under llamacpp:, so that
 * existing dashboards show something.  What the pipeline counts begins anew when it is opened again, as a
 * counter may.
 */
#ifndef TERN_COORDINATOR_SERVE_METRICS_TEXT_H
#define TERN_COORDINATOR_SERVE_METRICS_TEXT_H

#include "coordinator/serve/http_server.h"
#include "coordinator/serve/snapshot.h"

#define METRICS_TYPE "text/plain; version=0.0.4; charset=utf-8"

/* Appends to *out, which says whether memory sufficed.  model: its name, any bytes. */
void metrics_text(const struct snapshot *p, const struct http_counts *h, const char *model,
                  struct http_text *out);

#endif
