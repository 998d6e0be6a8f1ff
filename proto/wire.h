/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Messages to bytes and back.
 *
 * tern_wire_get() turns an untrusted header frame into a generated struct and refuses: other versions,
 * unknown fields anywhere, an empty body, strings or byte fields longer than limits.h allows or of the wrong
 * length (keys and hashes are 32 bytes), counts beyond limits, endpoints that are not tcp://HOST:PORT,
 * strings with control characters or invalid UTF-8, and every encoding but the canonical one (ascending
 * fields, shortest varints, nothing set twice): so put(get(bytes)) gives the same bytes.  What depends on
 * context (epoch, step number, shapes) is checked by those who know it.  Put refuses what get would refuse.
 *
 * No heap: unpacking allocates from the caller's arena, reset after each message; TERN_WIRE_ARENA_BYTES is
 * enough for any legal header.
 */
#ifndef TERN_PROTO_WIRE_H
#define TERN_PROTO_WIRE_H

#include "engine/base/mem.h"
#include "engine/base/status.h"
#include "proto/step.h"

#include "tern.pb-c.h"

#define TERN_WIRE_VERSION     1 /* that of the next release; raised once for it: CONTRIBUTING.md */
#define TERN_WIRE_ARENA_BYTES ((size_t)1 << 20)

enum tern_bye_reason { TERN_BYE_DONE = 1, TERN_BYE_DRAINING = 2, TERN_BYE_FAILED = 3 };

/* "step", "ping", ... for logs. */
const char *tern_wire_body_name(Tern__Header__BodyCase body);

/* Serialises into out (cap bytes); TERN_ERR_LIMIT when it does not fit. */
enum tern_status tern_wire_put(const Tern__Header *h, uint8_t *out, size_t cap, size_t *len,
                               struct tern_err *err) TERN_MUST_CHECK;

/* *out lives in the arena until its next reset. */
enum tern_status tern_wire_get(const void *bytes, size_t len, struct tern_arena *arena, Tern__Header **out,
                               struct tern_err *err) TERN_MUST_CHECK;

/* -- steps ----------------------------------------------------------------------------------------------- */

/* How many messages a step takes, and one of them: its header frame, and where in s->payload its payload
 * lies (not copied). */
uint32_t tern_wire_step_parts(const struct tern_step *s);
enum tern_status tern_wire_put_step(const struct tern_step *s, bool result, uint64_t epoch, uint32_t layout,
                                    uint32_t part, uint8_t *out, size_t cap, size_t *len,
                                    const uint8_t **payload, size_t *payload_len,
                                    struct tern_err *err) TERN_MUST_CHECK;

/*
 * Adds one received Step or Result message to s, which is clear when part 0 comes.  TERN_AGAIN while parts
 * are missing, TERN_OK when the step is whole (and tern_step_check() holds for Step), TERN_ERR_FORMAT when
 * the part is not the expected next one, the payload's length is not n_part_rows * row_bytes, or rows exceed
 * max_rows.  s->row_bytes and s->payload_cap are the holder's, as are t_in_ns, bytes_in and user.
 */
enum tern_status tern_wire_get_step(const Tern__Header *h, const void *payload, size_t payload_len,
                                    uint32_t max_rows, struct tern_step *s,
                                    struct tern_err *err) TERN_MUST_CHECK;

#endif
