/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The socket the server listens on, made here because only here the reasons it cannot be had are known.
 */
#include "coordinator/serve/http_impl.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define BACKLOG 128

/* host without the brackets of a literal. */
static bool bare_host(const char *host, char out[static HTTP_NAME_BYTES])
{
    size_t n = strlen(host);

    if (n >= 2 && host[0] == '[' && host[n - 1] == ']') {
        host++;
        n -= 2;
    }
    if (n == 0 || n >= HTTP_NAME_BYTES)
        return false;
    memcpy(out, host, n);
    out[n] = '\0';
    return true;
}

static enum tern_status resolve(const char *host, uint16_t port, struct addrinfo **out, struct tern_err *err)
{
    struct addrinfo hints = { .ai_flags = AI_PASSIVE | AI_NUMERICSERV, .ai_socktype = SOCK_STREAM };
    char service[8];
    int rc;

    snprintf(service, sizeof service, "%u", port);
    rc = getaddrinfo(host, service, &hints, out);
    if (rc != 0)
        return TERN_FAIL(err, TERN_ERR_USAGE, "cannot listen on '%s': %s", host,
                         rc == EAI_SYSTEM ? strerror(errno) : gai_strerror(rc));
    return TERN_OK;
}

static const char *advice(int no)
{
    switch (no) {
    case EADDRINUSE: return "; another program has the port, use --port";
    case EACCES: return "; ports below 1024 are root's, use --port";
    case EADDRNOTAVAIL: return "; this machine has no such address, use --host";
    default: return "";
    }
}

static int open_socket(const struct addrinfo *a, uint32_t send_timeout_ms)
{
    int on = 1, off = 0, no, fd = socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    unsigned patience = send_timeout_ms < UINT32_MAX / 2 ? 2 * send_timeout_ms + 1000 : send_timeout_ms;

    if (fd < 0)
        return -1;
    (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (a->ai_family == AF_INET6)
        (void)setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off);
    /* Inherited by connections: a machine that has fallen silent without a word is found out by the kernel;
     * later than the watchdog finds a reader that is merely slow. */
    (void)setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
    (void)setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &patience, sizeof patience);
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (bind(fd, a->ai_addr, a->ai_addrlen) == 0 && listen(fd, BACKLOG) == 0)
        return fd;
    no = errno;
    close(fd);
    errno = no;
    return -1;
}

static uint16_t port_of(int fd)
{
    struct sockaddr_storage sa;
    socklen_t len = sizeof sa;

    if (getsockname(fd, (struct sockaddr *)&sa, &len) != 0)
        return 0;
    if (sa.ss_family == AF_INET6)
        return ntohs(((struct sockaddr_in6 *)(void *)&sa)->sin6_port);
    return ntohs(((struct sockaddr_in *)(void *)&sa)->sin_port);
}

/* An address that means all of the machine's is reached at its own. */
static const char *reachable(const char *host)
{
    struct in6_addr v6;
    struct in_addr v4;

    if (inet_pton(AF_INET, host, &v4) == 1 && v4.s_addr == INADDR_ANY)
        return "127.0.0.1";
    if (inet_pton(AF_INET6, host, &v6) == 1 && IN6_IS_ADDR_UNSPECIFIED(&v6))
        return "127.0.0.1";
    return host;
}

enum tern_status http_listen(const struct http_options *o, int *fd, char *url, size_t url_bytes,
                             struct tern_err *err)
{
    struct addrinfo *all = NULL;
    char host[HTTP_NAME_BYTES];
    enum tern_status st;
    const char *name;
    int made = -1, no = 0;

    if (!bare_host(o->host, host))
        return TERN_FAIL(err, TERN_ERR_USAGE, "'%.100s' is not an address to listen on", o->host);
    st = resolve(host, o->port, &all, err);
    if (st)
        return st;
    for (const struct addrinfo *a = all; a && made < 0; a = a->ai_next) {
        made = open_socket(a, o->send_timeout_ms);
        if (made < 0 && !no)
            no = errno;
    }
    freeaddrinfo(all);
    name = strchr(host, ':') ? "[" : "";
    if (made < 0)
        return TERN_FAIL_SYS(err, TERN_ERR_IO, no, "cannot listen on %s%s%s:%u: %s%s", name, host,
                             *name ? "]" : "", o->port, strerror(no), advice(no));
    name = strchr(reachable(host), ':') ? "[" : "";
    snprintf(url, url_bytes, "%s://%s%s%s:%u", o->tls_cert ? "https" : "http", name, reachable(host),
             *name ? "]" : "", port_of(made));
    *fd = made;
    return TERN_OK;
}
