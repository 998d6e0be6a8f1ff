/* SPDX-License-Identifier: Apache-2.0 */
/*
 * delay_proxy: links that are slower, longer or worse than loopback, for tests and measurements.
 */
#include "lab/delay_relay.h"

#include <arpa/inet.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

static const char help[] =
    "delay_proxy: passes TCP connections on with a delay, jitter, a rate limit and stalls.\n"
    "\n"
    "usage: delay_proxy [options] --listen HOST:PORT --to HOST:PORT [[options] --listen ... --to ...]\n"
    "       delay_proxy --calibrate [--both delay=MS] [--rounds N] [--json]\n"
    "\n"
    "  --listen HOST:PORT   where to listen (numbers; port 0: a free one), and where that leads;\n"
    "  --to HOST:PORT       the pair makes one link with the options that stand in front of it\n"
    "  --up SPEC            what happens to bytes on their way to --to,\n"
    "  --down SPEC          on their way back,\n"
    "  --both SPEC          or in both directions.  A SPEC is some of these, separated by commas:\n"
    "                         delay=MS       one way, fractions allowed\n"
    "                         jitter=MS      up to that much more, evenly, drawn per read\n"
    "                         rate=BYTES     per second, shared by all connections of the link\n"
    "                         stall=S/MS     every S seconds nothing arrives for MS\n"
    "  --seed N             of the jitter (default: 1)\n"
    "  --buffer BYTES       of one direction of one connection (default: 4 MiB); a full one is not read\n"
    "  --ready-fd N         writes the port of each link there, one a line, once all listen\n"
    "  --calibrate          measures what it adds by itself to one way over loopback; --rounds round trips\n"
    "                       (default: 1000; with a delay of 10 ms that many take 20 s)\n"
    "  --help               this text\n"
    "\n"
    "The rate is applied first (serialising, in pieces of 1500 bytes, 50 ms waiting at most), then delay\n"
    "and jitter, then stalls.  Ends and resets of connections are delayed too.  The TCP handshake is not:\n"
    "it is between neighbours.  Runs until SIGTERM or SIGINT and then says what went through.\n";

struct args {
    struct delay_spec spec[2];
    uint64_t seed;
    unsigned rounds;
    int ready_fd;
    bool calibrate, json, has_listen;
    struct sockaddr_in listen;
};

static struct delay_relay relay;

static void on_signal(int number)
{
    (void)number;
    delay_relay_stop(&relay);
}

static void die(const char *option, const char *arg)
{
    fprintf(stderr, "delay_proxy: %s: '%s' is not of the form that --help says\n", option, arg ? arg : "");
    exit(64);
}

static void parse_address(const char *option, const char *arg, struct sockaddr_in *out)
{
    char host[64];
    const char *colon = strrchr(arg, ':');
    char *end;
    unsigned long port;

    memset(out, 0, sizeof *out);
    out->sin_family = AF_INET;
    if (!colon || (size_t)(colon - arg) >= sizeof host)
        die(option, arg);
    memcpy(host, arg, (size_t)(colon - arg));
    host[colon - arg] = '\0';
    port = strtoul(colon + 1, &end, 10);
    if (end == colon + 1 || *end || port > 65535 || inet_pton(AF_INET, host, &out->sin_addr) != 1)
        die(option, arg);
    out->sin_port = htons((uint16_t)port);
}

static uint64_t parse_number(const char *option, const char *arg, uint64_t min, uint64_t max)
{
    char *end;
    unsigned long long v = strtoull(arg, &end, 10);

    if (end == arg || *end || v < min || v > max)
        die(option, arg);
    return v;
}

static void add_link(struct args *a, const char *to)
{
    struct delay_link *l = &relay.links[relay.n_links];

    if (!a->has_listen || relay.n_links == DELAY_MAX_LINKS)
        die("--to", to);
    relay.n_links++;
    l->listen = a->listen;
    parse_address("--to", to, &l->to);
    l->spec[0] = a->spec[0];
    l->spec[1] = a->spec[1];
    l->seed = a->seed + 2 * relay.n_links;
    a->has_listen = false;
}

static void parse(int argc, char **argv, struct args *a)
{
    static const struct option longs[] = {
        { "listen", 1, NULL, 'l' }, { "to", 1, NULL, 't' },       { "up", 1, NULL, 'u' },
        { "down", 1, NULL, 'd' },   { "both", 1, NULL, 'b' },     { "seed", 1, NULL, 's' },
        { "buffer", 1, NULL, 'B' }, { "ready-fd", 1, NULL, 'r' }, { "calibrate", 0, NULL, 'c' },
        { "rounds", 1, NULL, 'n' }, { "json", 0, NULL, 'j' },     { "help", 0, NULL, 'h' },
        { NULL, 0, NULL, 0 },
    };
    int c;

    while ((c = getopt_long(argc, argv, "", longs, NULL)) != -1) {
        switch (c) {
        case 'l': parse_address("--listen", optarg, &a->listen), a->has_listen = true; break;
        case 't': add_link(a, optarg); break;
        case 'u':
        case 'd':
        case 'b':
            if ((c != 'd' && !delay_spec_parse(optarg, &a->spec[0])) ||
                (c != 'u' && !delay_spec_parse(optarg, &a->spec[1])))
                die("--up, --down, --both", optarg);
            break;
        case 's': a->seed = parse_number("--seed", optarg, 0, UINT64_MAX); break;
        case 'B': relay.buffer_bytes = parse_number("--buffer", optarg, 4096, 1u << 30); break;
        case 'r': a->ready_fd = (int)parse_number("--ready-fd", optarg, 0, 1 << 20); break;
        case 'c': a->calibrate = true; break;
        case 'n': a->rounds = (unsigned)parse_number("--rounds", optarg, 10, 1000000); break;
        case 'j': a->json = true; break;
        case 'h': fputs(help, stdout); exit(0);
        default: exit(64);
        }
    }
    if (optind < argc)
        die("delay_proxy", argv[optind]);
    if (a->has_listen || (!a->calibrate && relay.n_links == 0))
        die("--listen", "without --to");
}

int main(int argc, char **argv)
{
    struct args a = { .seed = 1, .rounds = 1000, .ready_fd = -1 };

    relay.buffer_bytes = 4u << 20;
    parse(argc, argv, &a);
    (void)prctl(PR_SET_TIMERSLACK, 1ul, 0, 0, 0);
    signal(SIGPIPE, SIG_IGN);
    if (a.calibrate)
        return delay_calibrate(&a.spec[0], a.rounds, a.json) ? 0 : 71;
    if (!delay_relay_open(&relay))
        return 71;
    signal(SIGTERM, on_signal);
    signal(SIGINT, on_signal);
    for (uint32_t i = 0; i < relay.n_links && a.ready_fd >= 0; i++)
        dprintf(a.ready_fd, "%u\n", relay.links[i].port);
    if (a.ready_fd >= 0)
        close(a.ready_fd);
    delay_relay_run(&relay);
    for (uint32_t i = 0; i < relay.n_links; i++)
        fprintf(stderr, "link %u: %llu connections, %llu bytes on, %llu back\n", (unsigned)i + 1,
                (unsigned long long)relay.links[i].n_connections, (unsigned long long)relay.links[i].bytes[0],
                (unsigned long long)relay.links[i].bytes[1]);
    delay_relay_close(&relay);
    return 0;
}
