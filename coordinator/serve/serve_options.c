/* SPDX-License-Identifier: Apache-2.0 */
/* The command line of `tern serve`: see serve_options.h. */
#include "coordinator/serve/serve_options.h"

#include "coordinator/embed.h"
#include "coordinator/option_habits.h"
#include "engine/base/limits.h"
#include "engine/chat_template.h"
#include "engine/option.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>

#define DEFAULT_PORT     8080
#define DEFAULT_PARALLEL 4
#define DEFAULT_QUEUE    64
#define DEFAULT_PREFIXES 16
#define DEFAULT_DRAIN_S  10

enum {
    OPT_HOST = ENGINE_OPT_LAST,
    OPT_PORT,
    OPT_API_KEY_FILE,
    OPT_TLS_CERT,
    OPT_TLS_KEY,
    OPT_INSECURE,
    OPT_ALLOW_HOST,
    OPT_ALLOW_ORIGIN,
    OPT_MAX_CONNECTIONS,
    OPT_MAX_PER_CLIENT,
    OPT_MAX_BODY,
    OPT_DRAIN,
    OPT_NO_PAGE,
    OPT_ALIAS,
    OPT_TEMPLATE,
    OPT_PARALLEL,
    OPT_MAX_QUEUE,
    OPT_PREFIXES,
    OPT_SHIFT,
    OPT_KEEP,
    OPT_POOLING
};

/* clang-format off */
static const struct option longs[] = {
    ENGINE_LONG_OPTIONS,
    { "host", required_argument, NULL, OPT_HOST },
    { "port", required_argument, NULL, OPT_PORT },
    { "api-key-file", required_argument, NULL, OPT_API_KEY_FILE },
    { "tls-cert", required_argument, NULL, OPT_TLS_CERT },
    { "ssl-cert-file", required_argument, NULL, OPT_TLS_CERT },
    { "tls-key", required_argument, NULL, OPT_TLS_KEY },
    { "ssl-key-file", required_argument, NULL, OPT_TLS_KEY },
    { "insecure-no-key", no_argument, NULL, OPT_INSECURE },
    { "allow-host", required_argument, NULL, OPT_ALLOW_HOST },
    { "allow-origin", required_argument, NULL, OPT_ALLOW_ORIGIN },
    { "max-connections", required_argument, NULL, OPT_MAX_CONNECTIONS },
    { "max-per-client", required_argument, NULL, OPT_MAX_PER_CLIENT },
    { "max-body", required_argument, NULL, OPT_MAX_BODY },
    { "drain-timeout", required_argument, NULL, OPT_DRAIN },
    { "no-page", no_argument, NULL, OPT_NO_PAGE },
    { "no-webui", no_argument, NULL, OPT_NO_PAGE },
    { "alias", required_argument, NULL, OPT_ALIAS },
    { "chat-template", required_argument, NULL, OPT_TEMPLATE },
    { "parallel", required_argument, NULL, OPT_PARALLEL },
    { "max-queue", required_argument, NULL, OPT_MAX_QUEUE },
    { "max-tokens", required_argument, NULL, 'n' },
    { "n-predict", required_argument, NULL, 'n' },
    { "prefixes", required_argument, NULL, OPT_PREFIXES },
    { "context-shift", no_argument, NULL, OPT_SHIFT },
    { "keep", required_argument, NULL, OPT_KEEP },
    { "pooling", required_argument, NULL, OPT_POOLING },
    { "embedding-pooling", required_argument, NULL, OPT_POOLING },
    { "help", no_argument, NULL, 'h' },
    { NULL, 0, NULL, 0 }
};
/* clang-format on */

static const char help[] =
    "tern serve: answers over HTTP, as OpenAI's API and llama-server do, and shows a page to chat with.\n"
    "\n"
    "usage: tern serve [-m FILE] [--cluster FILE | --local N] [options]\n"
    "\n"
    "All requests are computed together; each gets the text it would get alone.  Until the model is\n"
    "loaded they are answered with 503; when the server is ready, its address is printed.  SIGTERM\n"
    "and Ctrl-C let running requests end, for --drain-timeout at most; the second one does not\n"
    "wait.\n"
    "\n"
    "Server\n"
    "      --host ADDRESS        address to listen on (default: 127.0.0.1, this machine alone)\n"
    "      --port N              TCP port; 0: any that is free (default: 8080)\n"
    "      --api-key-file FILE   who may ask: lines `key` or `name key`; needed on any address but\n"
    "                            this machine's own\n"
    "      --insecure-no-key     listen on other addresses without it: everybody there may ask\n"
    "      --tls-cert FILE       certificate (PEM) to answer over HTTPS with; with --tls-key\n"
    "      --tls-key FILE        its key\n"
    "      --allow-host NAME     a further name the server is reached by (Host: of requests); *: any.\n"
    "                            May be repeated, as may --allow-origin\n"
    "      --allow-origin URL    a page from elsewhere that may ask from a browser, such as\n"
    "                            https://example.org; *: any\n"
    "      --max-connections N   open at a time (default: 256)\n"
    "      --max-per-client N    of one address (default: as many)\n"
    "      --max-body SIZE       of one request, such as 8M (default: 4M)\n"
    "      --drain-timeout S     how long running requests may go on when the server is stopped\n"
    "                            (default: 10)\n"
    "      --no-page             no page at /\n"
    "\n"
    "Answers\n"
    "      --parallel N          requests computed at once (default: 4).  The KV cache has room for N\n"
    "                            times the context; what running requests leave of it keeps the\n"
    "                            beginnings of earlier ones, for those that begin alike\n"
    "      --max-queue N         requests that may wait; more are refused with 503 (default: 64)\n"
    "  -n, --max-tokens N        of one answer at most; 0: until the context is full (default: 0)\n"
    "      --prefixes N          ended requests whose beginnings may be kept (default: 16)\n"
    "      --context-shift       a full context forgets its oldest half and the answer goes on; else\n"
    "                            it ends (finish_reason \"length\").  What stays is computed again\n"
    "      --keep N              tokens at the beginning that are never forgotten (default: 0)\n"
    "      --alias NAME          what the model is called (default: its file's name)\n";

static const char help_embeddings[] =
    "      --pooling KIND        of embeddings: mean, cls, last or none (default: what the model says)\n"
    "\n";

static const char help_output[] =
    "      --json                the address as a JSON object\n"
    "  -h, --help                this text\n"
    "\n"
    "Examples\n"
    "  tern serve -m model.gguf\n"
    "      on this machine alone; then open http://127.0.0.1:8080\n"
    "  tern serve -m model.gguf --cluster cluster --key ~/.config/tern/key --parallel 16\n"
    "      the layers on other machines, 16 requests at once\n"
    "  tern serve -m model.gguf --host 0.0.0.0 --api-key-file keys --tls-cert c.pem --tls-key k.pem\n"
    "      for others too, with a key and encrypted\n"
    "\n"
    "Temperature, stop texts, grammars and the like come with each request: coordinator/serve/API.md.\n";

static void print_help(void)
{
    fputs(help, stdout);
    tern_chat_format_help(stdout);
    fputs(help_embeddings, stdout);
    engine_options_print_help(true);
    fputs(help_output, stdout);
}

static enum tern_status add_name(const char *option, const char *arg, const char **list, uint32_t *n,
                                 struct tern_err *err)
{
    if (*n == SERVE_MAX_NAMES)
        return TERN_FAIL(err, TERN_ERR_LIMIT, "%s: more than %d of them", option, SERVE_MAX_NAMES);
    if (!*arg)
        return TERN_FAIL(err, TERN_ERR_USAGE, "%s: the name is empty", option);
    list[(*n)++] = arg;
    return TERN_OK;
}

/* TERN_END: none of these. */
static enum tern_status server_option(struct serve_options *o, int c, const char *arg, struct tern_err *err)
{
    switch (c) {
    case OPT_HOST: o->host = arg; return TERN_OK;
    case OPT_PORT: return tern_option_u32("--port", arg, 0, 65535, &o->port, err);
    case OPT_API_KEY_FILE: o->api_key_file = arg; return TERN_OK;
    case OPT_TLS_CERT: o->tls_cert = arg; return TERN_OK;
    case OPT_TLS_KEY: o->tls_key = arg; return TERN_OK;
    case OPT_INSECURE: o->insecure_no_key = true; return TERN_OK;
    case OPT_ALLOW_HOST: return add_name("--allow-host", arg, o->hosts, &o->n_hosts, err);
    case OPT_ALLOW_ORIGIN: return add_name("--allow-origin", arg, o->origins, &o->n_origins, err);
    case OPT_MAX_CONNECTIONS:
        return tern_option_u32("--max-connections", arg, 1, 65536, &o->max_connections, err);
    case OPT_MAX_PER_CLIENT:
        return tern_option_u32("--max-per-client", arg, 1, 65536, &o->max_per_client, err);
    case OPT_MAX_BODY: return tern_option_bytes("--max-body", arg, &o->max_body, err);
    case OPT_DRAIN: return tern_option_u32("--drain-timeout", arg, 0, 86400, &o->drain_s, err);
    case OPT_NO_PAGE: o->no_page = true; return TERN_OK;
    default: return TERN_END;
    }
}

static enum tern_status answers_option(struct serve_options *o, int c, const char *arg, struct tern_err *err)
{
    switch (c) {
    case OPT_ALIAS:
        o->alias = arg;
        return *arg ? TERN_OK : TERN_FAIL(err, TERN_ERR_USAGE, "--alias: the name is empty");
    case OPT_TEMPLATE: o->chat_format = arg; return TERN_OK;
    case OPT_PARALLEL: return tern_option_u32("--parallel", arg, 1, TERN_MAX_SLOTS, &o->parallel, err);
    case OPT_MAX_QUEUE: return tern_option_u32("--max-queue", arg, 0, 65536, &o->max_queue, err);
    case 'n': return tern_option_u32("-n", arg, 0, TERN_MAX_CONTEXT, &o->max_tokens, err);
    case OPT_PREFIXES:
        o->prefixes_given = true;
        return tern_option_u32("--prefixes", arg, 0, TERN_MAX_SLOTS - 1, &o->n_prefixes, err);
    case OPT_SHIFT: o->shift = true; return TERN_OK;
    case OPT_KEEP: return tern_option_u32("--keep", arg, 0, TERN_MAX_CONTEXT, &o->n_keep, err);
    case OPT_POOLING:
        if (!embed_pooling_by_name(arg, &o->pooling))
            return TERN_FAIL(err, TERN_ERR_USAGE, "--pooling: '%s' is not mean, cls, last or none", arg);
        o->pooling_given = true;
        return TERN_OK;
    default: return TERN_END;
    }
}

bool serve_host_is_local(const char *host)
{
    struct in_addr v4;
    struct in6_addr v6;

    if (inet_pton(AF_INET, host, &v4) == 1)
        return (ntohl(v4.s_addr) >> 24) == 127;
    if (inet_pton(AF_INET6, host, &v6) == 1)
        return IN6_IS_ADDR_LOOPBACK(&v6);
    return strcmp(host, "localhost") == 0;
}

static enum tern_status finish(struct serve_options *o, struct tern_err *err)
{
    if (!o->tls_cert != !o->tls_key)
        return TERN_FAIL(err, TERN_ERR_USAGE, "--tls-cert and --tls-key belong together; give both");
    if (!*o->host)
        return TERN_FAIL(err, TERN_ERR_USAGE, "--host: the address is empty");
    if (!serve_host_is_local(o->host) && !o->api_key_file && !o->insecure_no_key)
        return TERN_FAIL(
            err, TERN_ERR_USAGE,
            "--host %.80s can be reached from other machines: say who may ask with --api-key-file "
            "FILE, or that everybody may with --insecure-no-key",
            o->host);
    if (!o->prefixes_given)
        o->n_prefixes =
            DEFAULT_PREFIXES < TERN_MAX_SLOTS - o->parallel ? DEFAULT_PREFIXES : TERN_MAX_SLOTS - o->parallel;
    if (o->n_prefixes > TERN_MAX_SLOTS - o->parallel)
        return TERN_FAIL(err, TERN_ERR_LIMIT, "--parallel and --prefixes together are more than %d",
                         TERN_MAX_SLOTS);
    if (o->n_keep && !o->shift)
        return TERN_FAIL(err, TERN_ERR_USAGE, "--keep goes with --context-shift");
    return engine_options_finish(&o->engine, err);
}

enum tern_status serve_options_parse(int argc, char **argv, struct serve_options *o, struct tern_err *err)
{
    enum tern_status st;
    int c;

    memset(o, 0, sizeof *o);
    engine_options_default(&o->engine);
    o->host = "127.0.0.1";
    o->port = DEFAULT_PORT;
    o->parallel = DEFAULT_PARALLEL;
    o->max_queue = DEFAULT_QUEUE;
    o->drain_s = DEFAULT_DRAIN_S;
    optind = 1;
    while ((c = option_next(argc, argv, ":" ENGINE_SHORT_OPTIONS "n:h", longs, NULL, err)) != -1) {
        if (c == 'h') {
            print_help();
            return TERN_END;
        }
        if (c == '?')
            return TERN_ERR_USAGE;
        st = engine_option(&o->engine, c, optarg, err);
        if (st == TERN_END)
            st = server_option(o, c, optarg, err);
        if (st == TERN_END)
            st = answers_option(o, c, optarg, err);
        TERN_BUG_IF(st == TERN_END);
        if (st)
            return st;
    }
    if (optind < argc)
        return TERN_FAIL(err, TERN_ERR_USAGE, "'%s' is not an option; a model goes behind -m", argv[optind]);
    return finish(o, err);
}
