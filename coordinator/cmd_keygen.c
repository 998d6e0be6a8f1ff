/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `tern keygen FILE`: a new key pair for a coordinator or a worker, and the lines that others need to know
 * it.
 */
#include "coordinator/commands.h"
#include "coordinator/option_habits.h"
#include "proto/allow.h"
#include "proto/keys.h"

#include <getopt.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>

static const char help[] =
    "tern keygen: makes a key pair for a coordinator or a worker.\n"
    "\n"
    "usage: tern keygen [-o] FILE [--name NAME] [--role ROLE]\n"
    "       tern keygen --show FILE [--name NAME] [--role ROLE]\n"
    "\n"
    "Writes both halves to FILE (mode 0600; an existing file is never overwritten) and prints the\n"
    "public half, which belongs into the allow-lists and cluster files of the machines it is to talk\n"
    "to.  Keep FILE on the machine it was made on.\n"
    "\n"
    "  -o, --output FILE         the file to make\n"
    "      --show FILE           print the public half of an existing key file instead\n"
    "      --name NAME           print a line for an allow-list, `NAME ROLE PUBLICKEY`, instead of the\n"
    "                            bare key\n"
    "      --role ROLE           of that line: worker (the default) or coordinator\n"
    "      --json                the public half as a JSON object\n"
    "  -h, --help                this text\n";

static const struct option longs[] = {
    { "output", required_argument, NULL, 'o' },
    { "show", required_argument, NULL, 's' },
    { "name", required_argument, NULL, 'n' },
    { "role", required_argument, NULL, 'r' },
    { "json", no_argument, NULL, 'j' },
    { "help", no_argument, NULL, 'h' },
    { NULL, 0, NULL, 0 },
};

struct keygen_options {
    const char *path; /* to make, or to show */
    const char *name; /* NULL: no line for an allow-list */
    const char *role;
    bool show, json, help;
};

static enum tern_status take_path(struct keygen_options *o, const char *path, struct tern_err *err)
{
    if (o->path)
        return TERN_FAIL(err, TERN_ERR_USAGE, "one key file at a time: '%s' or '%s'", o->path, path);
    o->path = path;
    return TERN_OK;
}

/* What the daemons would refuse is not printed: the line is read back the way they read it. */
static enum tern_status check_line(const struct keygen_options *o, struct tern_err *err)
{
    char line[512], z85[TERN_Z85_CHARS + 1];
    static const uint8_t any[TERN_KEY_BYTES] = { 1 };
    struct tern_allow_entry *e = NULL;
    enum tern_status st;
    size_t n = 0;

    if (o->name[0] == '\0' || o->name[0] == '#' || strpbrk(o->name, " \t\r\n"))
        return TERN_FAIL(err, TERN_ERR_USAGE, "--name: '%s' is not one word that may begin a line", o->name);
    tern_key_to_z85(any, z85);
    if ((size_t)snprintf(line, sizeof line, "%s %s %s", o->name, o->role, z85) >= sizeof line)
        return TERN_FAIL(err, TERN_ERR_USAGE, "--name: at most %d bytes", TERN_MAX_NAME_BYTES);
    st = tern_allow_parse("--name or --role", line, strlen(line), &e, &n, err);
    free(e);
    if (st)
        err->status = TERN_ERR_USAGE;
    return st;
}

static enum tern_status parse_options(int argc, char **argv, struct keygen_options *o, struct tern_err *err)
{
    enum tern_status st = TERN_OK;
    const char *role = NULL;
    int c;

    optind = 1;
    while (!st && (c = option_next(argc, argv, ":ho:", longs, NULL, err)) != -1) {
        switch (c) {
        case 'o': st = take_path(o, optarg, err); break;
        case 's':
            o->show = true;
            st = take_path(o, optarg, err);
            break;
        case 'n': o->name = optarg; break;
        case 'r': role = optarg; break;
        case 'j': o->json = true; break;
        case 'h': o->help = true; return TERN_OK;
        default: return TERN_ERR_USAGE;
        }
    }
    while (!st && optind < argc)
        st = take_path(o, argv[optind++], err);
    if (!st && !o->path)
        st =
            TERN_FAIL(err, TERN_ERR_USAGE, "name one file for the key, for example `tern keygen worker.key`");
    if (!st && role && !o->name)
        st = TERN_FAIL(err, TERN_ERR_USAGE, "--role needs --name, the other half of the line");
    o->role = role ? role : "worker";
    if (!st && o->name)
        st = check_line(o, err);
    return st;
}

/* Z85 has neither '"' nor '\\', so it can stand in JSON as it is. */
static enum tern_status print_public(const struct tern_key *key, const struct keygen_options *o,
                                     struct tern_err *err)
{
    char z85[TERN_Z85_CHARS + 1];
    enum tern_status st;

    tern_key_to_z85(key->public_key, z85);
    if (o->json)
        printf("{\"public\": \"%s\"}\n", z85);
    else if (o->name)
        printf("%s %s %s\n", o->name, o->role, z85);
    else
        printf("%s\n", z85);
    st = cmd_flush(err);
    if (st)
        return st;
    if (o->name && !o->json)
        fprintf(stderr, "The line above belongs into the allow-list of every ternd that %s may connect to.\n",
                o->name);
    if (o->name && !o->json && strcmp(o->role, "worker") == 0)
        fprintf(stderr, "In the coordinator's cluster file: %s tcp://HOST:PORT %s\n", o->name, z85);
    return TERN_OK;
}

static enum tern_status make_or_show(const struct keygen_options *o, struct tern_err *err)
{
    struct tern_key key;
    enum tern_status st = o->show ? tern_key_load(o->path, &key, err) : tern_key_generate(&key, err);

    if (st)
        return st;
    if (!o->show)
        st = tern_key_save(o->path, &key, err);
    if (!st)
        st = print_public(&key, o, err);
    tern_key_wipe(&key);
    return st;
}

int cmd_keygen(int argc, char **argv)
{
    struct keygen_options o = { .path = NULL };
    struct tern_err err;

    if (parse_options(argc, argv, &o, &err))
        return cmd_fail("keygen", &err);
    if (o.help) {
        fputs(help, stdout);
        return EX_OK;
    }
    if (make_or_show(&o, &err))
        return cmd_fail("keygen", &err);
    return EX_OK;
}
