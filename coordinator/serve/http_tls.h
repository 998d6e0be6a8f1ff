/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A certificate and its key, checked before the server starts: libmicrohttpd itself only says that it could
 * not.
 */
#ifndef TERN_COORDINATOR_SERVE_HTTP_TLS_H
#define TERN_COORDINATOR_SERVE_HTTP_TLS_H

#include "engine/base/status.h"

/* PEM text, with a NUL behind it. */
struct http_tls {
    char *cert, *key;
};

/* Both must be readable, be what they say, and belong together; a key that everybody can read is refused.
 * A certificate that is not valid today is a warning. */
enum tern_status http_tls_load(const char *cert_path, const char *key_path, struct http_tls *out,
                               struct tern_err *err) TERN_MUST_CHECK;
void http_tls_wipe(struct http_tls *t);

#endif
