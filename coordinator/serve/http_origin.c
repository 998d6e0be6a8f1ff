/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Host and Origin: parsed strictly, compared exactly.
 */
#include "coordinator/serve/http_origin.h"

#include <arpa/inet.h>
#include <string.h>
#include <strings.h>

static bool parse_port(const char *text, uint16_t *out)
{
    uint32_t n = 0;

    if (!*text || strlen(text) > 5)
        return false;
    for (; *text; text++) {
        if (*text < '0' || *text > '9')
            return false;
        n = n * 10 + (uint32_t)(*text - '0');
    }
    if (n == 0 || n > 65535)
        return false;
    *out = (uint16_t)n;
    return true;
}

static bool is_name_char(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '.' || c == '_';
}

/* [len] of text in lower case into name; false when a character is not a name's. */
static bool take_name(const char *text, size_t len, char name[static HTTP_NAME_BYTES])
{
    if (len == 0 || len >= HTTP_NAME_BYTES)
        return false;
    for (size_t i = 0; i < len; i++) {
        char c = text[i];

        if (c >= 'A' && c <= 'Z')
            c = (char)(c + ('a' - 'A'));
        if (!is_name_char(c) || (c == '.' && (i == 0 || text[i - 1] == '.')))
            return false;
        name[i] = c;
    }
    /* "name." is the same name to the resolver, and to a browser another origin. */
    if (len > 1 && name[len - 1] == '.')
        len--;
    name[len] = '\0';
    return true;
}

static bool take_bracketed(const char *text, size_t len, char name[static HTTP_NAME_BYTES])
{
    char literal[INET6_ADDRSTRLEN];
    struct in6_addr a;

    if (len >= sizeof literal)
        return false;
    memcpy(literal, text, len);
    literal[len] = '\0';
    return inet_pton(AF_INET6, literal, &a) == 1 && inet_ntop(AF_INET6, &a, name, HTTP_NAME_BYTES);
}

bool http_authority_parse(const char *text, struct http_authority *out)
{
    struct http_authority a = { .port = 0 };
    struct in_addr v4;
    const char *rest;

    if (*text == '[') {
        const char *end = strchr(text, ']');

        if (!end || !take_bracketed(text + 1, (size_t)(end - text - 1), a.name))
            return false;
        a.is_address = true;
        rest = end + 1;
    } else {
        size_t len = strcspn(text, ":");

        if (!take_name(text, len, a.name))
            return false;
        a.is_address = inet_pton(AF_INET, a.name, &v4) == 1;
        rest = text + len;
    }
    if (*rest && (*rest != ':' || !parse_port(rest + 1, &a.port)))
        return false;
    *out = a;
    return true;
}

bool http_origin_parse(const char *text, bool *https, struct http_authority *out)
{
    bool tls = strncasecmp(text, "https://", 8) == 0;
    struct http_authority a;

    if (!tls && strncasecmp(text, "http://", 7) != 0)
        return false;
    if (!http_authority_parse(text + (tls ? 8 : 7), &a))
        return false;
    if (!a.port)
        a.port = tls ? 443 : 80;
    *https = tls;
    *out = a;
    return true;
}

static bool same_authority(const struct http_authority *a, const struct http_authority *b)
{
    return a->port == b->port && strcmp(a->name, b->name) == 0;
}

static bool is_star(const char *text)
{
    return strcmp(text, "*") == 0;
}

enum tern_status http_sites_check(const struct http_sites *sites, struct tern_err *err)
{
    struct http_authority a;
    bool https;

    for (uint32_t i = 0; i < sites->n_hosts; i++)
        if (!is_star(sites->hosts[i]) && (!http_authority_parse(sites->hosts[i], &a) || a.port))
            return TERN_FAIL(err, TERN_ERR_USAGE,
                             "'%s' is not the name of a host; allow names such as tern.example, without port",
                             sites->hosts[i]);
    for (uint32_t i = 0; i < sites->n_origins; i++)
        if (!is_star(sites->origins[i]) && !http_origin_parse(sites->origins[i], &https, &a))
            return TERN_FAIL(err, TERN_ERR_USAGE,
                             "'%s' is not the origin of a page; write it like https://app.example",
                             sites->origins[i]);
    return TERN_OK;
}

/* Is it among the names that were allowed? */
static bool is_listed(const struct http_sites *sites, const char *name)
{
    struct http_authority a;

    for (uint32_t i = 0; i < sites->n_hosts; i++)
        if (http_authority_parse(sites->hosts[i], &a) && strcmp(a.name, name) == 0)
            return true;
    return false;
}

static bool host_allowed(const struct http_sites *sites, const struct http_authority *host)
{
    for (uint32_t i = 0; i < sites->n_hosts; i++)
        if (is_star(sites->hosts[i]))
            return true;
    return sites->any_host || host->is_address || strcmp(host->name, "localhost") == 0 ||
           is_listed(sites, host->name);
}

static bool is_guest(const struct http_sites *sites, const char *origin)
{
    struct http_authority a, b;
    bool tls_a, tls_b;

    for (uint32_t i = 0; i < sites->n_origins; i++) {
        if (is_star(sites->origins[i]))
            return true;
        if (http_origin_parse(sites->origins[i], &tls_a, &a) && http_origin_parse(origin, &tls_b, &b) &&
            tls_a == tls_b && same_authority(&a, &b))
            return true;
    }
    return false;
}

enum http_verdict http_sites_judge(const struct http_sites *sites, const char *host, const char *origin,
                                   bool tls, struct tern_err *err)
{
    struct http_authority h = { .port = 0 }, o;
    bool https;

    if (host && !http_authority_parse(host, &h)) {
        (void)TERN_FAIL(err, TERN_ERR_FORMAT, "the Host '%.100s' is not a name or an address", host);
        return HTTP_REFUSED;
    }
    if (host && !host_allowed(sites, &h)) {
        (void)TERN_FAIL(err, TERN_ERR_AUTH,
                        "this server does not answer to the name '%.100s'; if the name is its own, start it "
                        "with --allow-host %.100s",
                        h.name, h.name);
        return HTTP_REFUSED;
    }
    if (!origin)
        return HTTP_OWN;
    if (host && http_origin_parse(origin, &https, &o)) {
        if (!h.port)
            h.port = https ? 443 : 80; /* https also without TLS of ours: a proxy in front may speak it */
        if (same_authority(&h, &o) && (https || !tls))
            return HTTP_OWN;
        /* A proxy that puts its own address into Host. */
        if (is_listed(sites, o.name))
            return HTTP_OWN;
    }
    if (is_guest(sites, origin))
        return HTTP_GUEST;
    (void)TERN_FAIL(err, TERN_ERR_AUTH,
                    "pages of %.100s may not use this server; to let them, start it with --allow-origin "
                    "%.100s",
                    origin, origin);
    return HTTP_REFUSED;
}
