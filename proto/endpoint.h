/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Addresses as text: `tcp://HOST:PORT` of a peer, and `ADDR:PORT` to listen on.
 *
 * HOST is a name, an IPv4 address, or an IPv6 address in brackets.  Nothing is looked up here.
 */
#ifndef TERN_PROTO_ENDPOINT_H
#define TERN_PROTO_ENDPOINT_H

#include "engine/base/limits.h"
#include "engine/base/status.h"

#include <stdbool.h>
#include <stddef.h>

/* True for tcp://HOST:PORT with PORT 1..65535, of at most TERN_MAX_ENDPOINT_BYTES. */
bool tern_endpoint_valid(const char *text, size_t len);

/* True when the host is written in brackets, for either kind of address. */
bool tern_endpoint_is_ipv6(const char *text);

/* "127.0.0.1:7700", "[::]:7700", "*:0", "localhost:*" -> what libzmq binds.  HOST may be `*` (all IPv4
 * addresses) or a network interface's name; PORT may be 0 or `*` (any free one). */
enum tern_status tern_endpoint_from_listen(const char *addr_port,
                                           char out[static TERN_MAX_ENDPOINT_BYTES + 1],
                                           struct tern_err *err) TERN_MUST_CHECK;

#endif
