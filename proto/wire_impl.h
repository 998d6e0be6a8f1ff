/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Between the files of the wire: the strict check of a header's bytes, before protobuf-c sees them.
 */
#ifndef TERN_PROTO_WIRE_IMPL_H
#define TERN_PROTO_WIRE_IMPL_H

#include "engine/base/status.h"

#include <protobuf-c/protobuf-c.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Walks the bytes of a Header by its descriptor.  TERN_OK means: this version, known fields only, each in
 * its canonical form and within its limits (the table in wire_scan.c), so that unpacking cannot fail but
 * for want of memory. */
enum tern_status tern_wire_scan(const uint8_t *bytes, size_t len, struct tern_err *err) TERN_MUST_CHECK;

/* True when the table of limits knows this field, as it must for every text, byte string and repeated
 * field (a test walks them all). */
bool tern_wire_has_limit(const ProtobufCMessageDescriptor *message, uint32_t field);

/* Well-formed UTF-8 without control characters (C0, DEL, C1). */
bool tern_wire_text_valid(const uint8_t *text, size_t len);

#endif
