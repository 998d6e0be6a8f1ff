/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the HTTP server parses itself: a line for Host, one for Origin, then a file of keys.  Nobody is let in
 * by a name that was not allowed; a name that was read is read the same when written out.
 */
#include "fuzz/fuzz.h"

#include "coordinator/serve/http_keys.h"
#include "coordinator/serve/http_origin.h"

#include <arpa/inet.h>
#include <string.h>

#define LINE_BYTES 1024

static const char *const hosts[] = { "tern.example" };
static const char *const origins[] = { "https://app.example" };
static const struct http_sites sites = { hosts, 1, origins, 1 };

/* The next line without its end; what is left in *data. */
static void take_line(const uint8_t **data, size_t *size, char line[static LINE_BYTES])
{
    const uint8_t *lf = memchr(*data, '\n', *size);
    size_t n = lf ? (size_t)(lf - *data) : *size, kept = n < LINE_BYTES ? n : LINE_BYTES - 1;

    memcpy(line, *data, kept);
    line[kept] = '\0';
    n += lf != NULL;
    *data += n;
    *size -= n;
}

static void check_authority(const char *text)
{
    struct http_authority a, b;
    char again[HTTP_NAME_BYTES + 16];
    bool v6;

    if (!http_authority_parse(text, &a))
        return;
    FUZZ_CHECK(a.name[0] && strlen(a.name) < HTTP_NAME_BYTES);
    FUZZ_CHECK(strspn(a.name, "abcdefghijklmnopqrstuvwxyz0123456789-._:") == strlen(a.name));
    v6 = strchr(a.name, ':') != NULL;
    FUZZ_CHECK(!v6 || a.is_address);
    snprintf(again, sizeof again, a.port ? "%s%s%s:%u" : "%s%s%s", v6 ? "[" : "", a.name, v6 ? "]" : "",
             a.port);
    FUZZ_CHECK(http_authority_parse(again, &b));
    FUZZ_CHECK(strcmp(a.name, b.name) == 0 && a.port == b.port && a.is_address == b.is_address);
}

static bool may_be_host(const char *text)
{
    struct http_authority a;

    return http_authority_parse(text, &a) &&
           (a.is_address || strcmp(a.name, "localhost") == 0 || strcmp(a.name, hosts[0]) == 0);
}

static void check_sites(const char *host, const char *origin)
{
    struct http_authority h, o, app;
    struct tern_err err = { .text = "" };
    bool https, app_https;

    switch (http_sites_judge(&sites, host, origin, false, &err)) {
    case HTTP_OWN:
        FUZZ_CHECK(may_be_host(host) && http_authority_parse(host, &h));
        FUZZ_CHECK(http_origin_parse(origin, &https, &o));
        FUZZ_CHECK(strcmp(o.name, h.name) == 0 || strcmp(o.name, hosts[0]) == 0);
        break;
    case HTTP_GUEST:
        FUZZ_CHECK(may_be_host(host) && http_origin_parse(origin, &https, &o));
        FUZZ_CHECK(http_origin_parse(origins[0], &app_https, &app));
        FUZZ_CHECK(https == app_https && o.port == app.port && strcmp(o.name, app.name) == 0);
        /* It goes into a header. */
        FUZZ_CHECK(strpbrk(origin, "\r\n\t ") == NULL);
        break;
    case HTTP_REFUSED: FUZZ_CHECK(err.text[0]); break;
    }
}

static void check_keys(const char *text, size_t len)
{
    static const uint8_t salt[HTTP_KEY_DIGEST_BYTES] = { 1 };
    struct http_key *list = NULL;
    struct tern_err err = { .text = "" };
    size_t n = 0;

    if (http_keys_parse("keys", text, len, salt, &list, &n, &err)) {
        FUZZ_CHECK(!list && n == 0 && err.text[0]);
        return;
    }
    FUZZ_CHECK(n >= 1 && n <= HTTP_MAX_KEYS);
    for (size_t i = 1; i < n; i++)
        FUZZ_CHECK(memcmp(list[i].digest, list[i - 1].digest, sizeof list[i].digest) != 0);
    free(list);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char host[LINE_BYTES], origin[LINE_BYTES];
    bool https;
    struct http_authority a;

    take_line(&data, &size, host);
    take_line(&data, &size, origin);
    check_authority(host);
    if (http_origin_parse(origin, &https, &a))
        FUZZ_CHECK(a.port != 0);
    check_sites(host, origin);
    check_keys((const char *)data, size);
    return 0;
}
