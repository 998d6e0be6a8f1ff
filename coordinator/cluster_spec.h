/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which machines make up a cluster, and which layers each one holds.
 *
 * A cluster file is like known_hosts, one worker a line in pipeline order: `name tcp://host:port PUBLICKEY
 * [layers=a-b]`; a and b are the first and the last layer it holds, counted from 0 (`layers=7` is one layer).
 * Either every line says its layers, and they cover the model once, in order, or none does and layers are
 * shared evenly.  Empty lines and lines beginning with `#` are skipped.
 */
#ifndef TERN_COORDINATOR_CLUSTER_SPEC_H
#define TERN_COORDINATOR_CLUSTER_SPEC_H

#include "engine/base/limits.h"
#include "engine/base/status.h"

#include <stdbool.h>
#include <stdint.h>

struct cluster_member {
    char name[TERN_MAX_NAME_BYTES + 1];
    char endpoint[TERN_MAX_ENDPOINT_BYTES + 1];
    uint8_t key[TERN_KEY_BYTES];
    uint32_t line; /* of the file, for sentences; 0: from no file */
    bool has_layers;
    uint32_t first, last; /* [first, last) */
};

struct cluster_spec {
    uint32_t n;
    struct cluster_member members[TERN_MAX_WORKERS];
};

/* Names, endpoints and keys are unique in one file: a worker is known by its key.  `name` is what
 * sentences call the text. */
enum tern_status cluster_spec_parse(const char *name, const char *text, size_t len, struct cluster_spec *out,
                                    struct tern_err *err) TERN_MUST_CHECK;
enum tern_status cluster_spec_read(const char *path, struct cluster_spec *out,
                                   struct tern_err *err) TERN_MUST_CHECK;

/* Fills first and last of every member for a model of n_layers, or says why the file's layers do not fit.
 * At least one layer each; shared evenly, counts differ by one at most and earlier workers have the larger
 * share. */
enum tern_status cluster_spec_plan(struct cluster_spec *spec, uint32_t n_layers,
                                   struct tern_err *err) TERN_MUST_CHECK;

#endif
