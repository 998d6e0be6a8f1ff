/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who a browser says it talks to (Host) and which page makes it do so (Origin).
 *
 * A page of a stranger can make a browser send requests to this server: by DNS rebinding, where the
 * stranger's own name suddenly means our address (then Host has that name), or plainly across origins (then
 * Origin has its page).  Addresses cannot be rebound, nor can localhost; every other name must have been
 * allowed.  A request that brings a key needs no such proof: no stranger's page has one.
 *
 * Pure functions over text from outside; `sites` is read only.
 */
#ifndef TERN_COORDINATOR_SERVE_HTTP_ORIGIN_H
#define TERN_COORDINATOR_SERVE_HTTP_ORIGIN_H

#include "engine/base/status.h"

#include <stdbool.h>
#include <stdint.h>

#define HTTP_NAME_BYTES 256 /* of a host's name with its NUL; DNS has at most 253 characters */

/* host[:port], the name in lower case, an IPv6 address without brackets. */
struct http_authority {
    char name[HTTP_NAME_BYTES];
    uint16_t port; /* 0: none was given */
    bool is_address;
};

/* False when it is not one: *out is untouched.  No user info, no path, no blanks. */
bool http_authority_parse(const char *text, struct http_authority *out);

/* "http://name[:port]" or https, the port filled in with the scheme's own; false for anything else, "null"
 * included. */
bool http_origin_parse(const char *text, bool *https, struct http_authority *out);

/* What may stand there besides addresses and localhost; borrowed. */
struct http_sites {
    const char *const *hosts; /* [n_hosts] names; "*": any Host */
    uint32_t n_hosts;
    const char *const *origins; /* [n_origins] as a browser writes them; "*": any Origin */
    uint32_t n_origins;
    bool any_host; /* of this request: any Host will do */
};

/* Are the configured names and origins what they should be? */
enum tern_status http_sites_check(const struct http_sites *sites, struct tern_err *err) TERN_MUST_CHECK;

enum http_verdict {
    HTTP_OWN,    /* ours: the Host is allowed, the Origin is our own page or there is none */
    HTTP_GUEST,  /* a page from elsewhere that has been allowed to call us: wants CORS headers */
    HTTP_REFUSED /* *err says why */
};

/* host and origin: the headers, NULL when absent.  A request without Host (HTTP/1.0) is nobody's browser. */
enum http_verdict http_sites_judge(const struct http_sites *sites, const char *host, const char *origin,
                                   bool tls, struct tern_err *err);

#endif
