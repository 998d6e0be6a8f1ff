/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `tern serve`: a service, its API, the HTTP server in front of it, and what signals mean to them.
 *
 * The server is open before there is anything to ask: an address in use is found out before a model is read,
 * and clients hear that it is being loaded.  The main thread loads it, and then does nothing but wait for a
 * signal.
 */
#include "coordinator/commands.h"
#include "coordinator/interrupt.h"
#include "coordinator/json_out.h"
#include "coordinator/serve/api.h"
#include "coordinator/serve/http_server.h"
#include "coordinator/serve/serve_options.h"
#include "coordinator/serve/service.h"
#include "engine/base/log.h"
#include "engine/base/systemd.h"

#include <arpa/inet.h>
#include <ifaddrs.h>
#include <jansson.h>
#include <net/if.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>
#include <time.h>
#include <unistd.h>

struct serve {
    struct serve_options o;
    struct api *api;
    struct http_server *http;
    struct service *service;
};

static enum tern_status open_door(struct serve *s, struct tern_err *err)
{
    const struct serve_options *o = &s->o;
    const struct api_options ao = { .page = !o->no_page,
                                    .shift = o->shift,
                                    .n_keep = o->n_keep,
                                    .max_tokens = o->max_tokens,
                                    .pooling_given = o->pooling_given,
                                    .pooling = o->pooling };
    struct http_options ho = { .host = o->host,
                               .port = (uint16_t)o->port,
                               .api_key_file = o->api_key_file,
                               .tls_cert = o->tls_cert,
                               .tls_key = o->tls_key,
                               .hosts = o->hosts,
                               .n_hosts = o->n_hosts,
                               .origins = o->origins,
                               .n_origins = o->n_origins,
                               .max_connections = o->max_connections,
                               .max_per_client = o->max_per_client,
                               .max_body = (size_t)o->max_body,
                               .is_public = api_is_public,
                               .handle = api_handle,
                               .error = api_error };
    enum tern_status st = api_new(&ao, &s->api, err);

    if (st)
        return st;
    ho.user = s->api;
    return http_server_open(&ho, &s->http, err);
}

static enum tern_status load(struct serve *s, struct tern_err *err)
{
    const struct serve_options *o = &s->o;
    const struct service_options so = { .engine = &o->engine,
                                        .name = o->alias,
                                        .parallel = o->parallel,
                                        .max_queue = o->max_queue,
                                        .max_tokens = o->max_tokens,
                                        .n_prefixes = o->n_prefixes,
                                        .chat_format = o->chat_format };
    enum tern_status st = service_open(&so, &s->service, err);

    return st ? st : api_begin(s->api, s->service, err);
}

/* "0.0.0.0" is no address one can type: those that it means. */
static void tell_addresses(const struct serve *s)
{
    const char *url = http_server_url(s->http), *port = strrchr(url, ':');
    const char *said = "tern serve: from other machines:";
    struct ifaddrs *all = NULL;
    char text[INET_ADDRSTRLEN];
    bool any = false;

    if ((strcmp(s->o.host, "0.0.0.0") != 0 && strcmp(s->o.host, "::") != 0) || getifaddrs(&all) != 0)
        return;
    for (const struct ifaddrs *a = all; a; a = a->ifa_next) {
        struct sockaddr_in v4;

        if (!a->ifa_addr || a->ifa_addr->sa_family != AF_INET || !(a->ifa_flags & IFF_UP) ||
            (a->ifa_flags & IFF_LOOPBACK))
            continue;
        memcpy(&v4, a->ifa_addr, sizeof v4);
        if (!inet_ntop(AF_INET, &v4.sin_addr, text, sizeof text))
            continue;
        fprintf(stderr, "%s %s://%s%s", any ? "" : said, s->o.tls_cert ? "https" : "http", text, port);
        any = true;
    }
    if (any)
        fputc('\n', stderr);
    freeifaddrs(all);
}

static enum tern_status announce(const struct serve *s, struct tern_err *err)
{
    const char *url = http_server_url(s->http), *model = service_model_name(s->service);
    const uint32_t ctx = service_ctx(s->service);

    if (s->o.engine.json) {
        json_t *name = json_out_text((struct tern_str){ model, strlen(model) });
        json_t *o = json_pack("{s:s, s:o, s:i, s:i}", "url", url, "model", name, "ctx", (int)ctx, "parallel",
                              (int)s->o.parallel);

        if (!o || json_dumpf(o, stdout, JSON_COMPACT) != 0) {
            json_decref(o);
            return TERN_FAIL(err, TERN_ERR_IO, "cannot print the address");
        }
        json_decref(o);
        putchar('\n');
    } else {
        printf("tern serve: %s  %s, context of %u tokens, %u at once\n", url, model, (unsigned)ctx,
               (unsigned)s->o.parallel);
    }
    if (!s->o.engine.quiet && s->o.api_key_file && !s->o.tls_cert && !serve_host_is_local(s->o.host))
        fputs("tern serve: note: keys and texts travel unencrypted; --tls-cert and --tls-key change that\n",
              stderr);
    if (!s->o.engine.quiet)
        tell_addresses(s);
    tern_systemd_tell("READY=1");
    return cmd_flush(err);
}

static void look_again(void)
{
    nanosleep(&(struct timespec){ .tv_nsec = 2 * INTERRUPT_LOOK_MS * 1000000L }, NULL);
}

/* What runs may end; what is new is refused.  Another signal ends the wait, the same one everything. */
static void drain(const struct serve *s, int sig)
{
    const uint64_t until = tern_now_ms() + (uint64_t)s->o.drain_s * 1000;
    uint32_t busy;

    tern_systemd_tell("STOPPING=1");
    http_server_drain(s->http);
    service_drain(s->service);
    if ((busy = http_server_busy(s->http)) > 0 && !s->o.engine.quiet)
        fprintf(stderr, "tern serve: %u requests are still being answered\n", (unsigned)busy);
    while (http_server_busy(s->http) > 0 && tern_now_ms() < until && interrupt_signal() == sig)
        look_again();
}

static void close_all(struct serve *s)
{
    http_server_close(&s->http); /* its handlers have jobs, */
    service_close(&s->service);  /* and these what the API made for grammars */
    api_free(&s->api);
    free(s);
}

int cmd_serve(int argc, char **argv)
{
    struct serve *s = calloc(1, sizeof *s);
    struct tern_err err;
    enum tern_status st;
    int code = EX_OK;

    if (!s) {
        (void)TERN_FAIL(&err, TERN_ERR_MEMORY, "no memory to start");
        return cmd_fail("serve", &err);
    }
    signal(SIGPIPE, SIG_IGN);
    if (!isatty(STDIN_FILENO))
        signal(SIGHUP, SIG_IGN); /* there is nothing to be read again; at a terminal it is its end */
    if ((st = serve_options_parse(argc, argv, &s->o, &err))) {
        if (st != TERN_END)
            code = cmd_fail("serve", &err);
        free(s);
        return code;
    }
    interrupt_catch();
    if ((st = open_door(s, &err)) || (st = load(s, &err)) || (st = announce(s, &err))) {
        code = cmd_fail_or_end("serve", &err);
    } else {
        while (!interrupt_signal())
            look_again();
        drain(s, interrupt_signal());
    }
    close_all(s);
    return code;
}
