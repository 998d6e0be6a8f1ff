/* SPDX-License-Identifier: Apache-2.0 */
#include "proto/endpoint.h"

#include <stdint.h>
#include <stdio.h>
#include <string.h>

#define SCHEME "tcp://"

static bool is_alnum(char c)
{
    return (c >= '0' && c <= '9') || ((c | 0x20) >= 'a' && (c | 0x20) <= 'z');
}

/* A name, an IPv4 address, or [IPv6%scope]; only the characters are checked, the resolver knows the rest. */
static bool host_valid(const char *host, size_t len)
{
    bool bracket = len > 2 && host[0] == '[' && host[len - 1] == ']';

    if (len == 0)
        return false;
    if (bracket) {
        host++;
        len -= 2;
    }
    for (size_t i = 0; i < len; i++) {
        char c = host[i];

        if (is_alnum(c) || c == '.' || c == '-' || c == '_')
            continue;
        if (!bracket || (c != ':' && c != '%'))
            return false;
    }
    return true;
}

/* Decimal without sign or leading zero, 1..65535. */
static bool port_valid(const char *port, size_t len)
{
    uint32_t v = 0;

    if (len == 0 || len > 5 || port[0] == '0')
        return false;
    for (size_t i = 0; i < len; i++) {
        if (port[i] < '0' || port[i] > '9')
            return false;
        v = v * 10 + (uint32_t)(port[i] - '0');
    }
    return v <= 65535;
}

/* The last colon; NULL without one. */
static const char *find_colon(const char *text, size_t len)
{
    while (len > 0)
        if (text[--len] == ':')
            return text + len;
    return NULL;
}

bool tern_endpoint_valid(const char *text, size_t len)
{
    size_t scheme = sizeof SCHEME - 1;
    const char *colon;

    if (len <= scheme || len > TERN_MAX_ENDPOINT_BYTES || memcmp(text, SCHEME, scheme) != 0)
        return false;
    text += scheme;
    len -= scheme;
    colon = find_colon(text, len);
    return colon && host_valid(text, (size_t)(colon - text)) &&
           port_valid(colon + 1, len - (size_t)(colon - text) - 1);
}

bool tern_endpoint_is_ipv6(const char *text)
{
    return strncmp(text, SCHEME "[", sizeof SCHEME) == 0 || text[0] == '[';
}

enum tern_status tern_endpoint_from_listen(const char *addr_port,
                                           char out[static TERN_MAX_ENDPOINT_BYTES + 1], struct tern_err *err)
{
    size_t len = strlen(addr_port), host_len;
    const char *colon = find_colon(addr_port, len), *host = addr_port, *port;
    bool any;

    if (len > TERN_MAX_ENDPOINT_BYTES - sizeof SCHEME)
        return TERN_FAIL(err, TERN_ERR_USAGE, "the address to listen on is longer than %zu characters",
                         TERN_MAX_ENDPOINT_BYTES - sizeof SCHEME);
    if (!colon)
        return TERN_FAIL(err, TERN_ERR_USAGE, "'%s' is not ADDR:PORT, such as 0.0.0.0:7700", addr_port);
    host_len = (size_t)(colon - host);
    port = colon + 1;
    any = strcmp(port, "0") == 0 || strcmp(port, "*") == 0;
    if (!(host_len == 1 && host[0] == '*') && !host_valid(host, host_len))
        return TERN_FAIL(
            err, TERN_ERR_USAGE,
            "'%s' is not ADDR:PORT: ADDR is an address of this machine such as 127.0.0.1, [::1] or *",
            addr_port);
    if (!any && !port_valid(port, strlen(port)))
        return TERN_FAIL(err, TERN_ERR_USAGE,
                         "'%s' is not ADDR:PORT: PORT is 1 to 65535, or 0 for a free one", addr_port);
    /* libzmq does not look names up when it binds; this one everybody types. */
    if (host_len == 9 && memcmp(host, "localhost", 9) == 0)
        host = "127.0.0.1";
    (void)snprintf(out, TERN_MAX_ENDPOINT_BYTES + 1, SCHEME "%.*s:%s", (int)host_len, host, any ? "*" : port);
    return TERN_OK;
}
