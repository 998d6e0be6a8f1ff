/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `tern keygen FILE`: a new key pair for a coordinator or a worker.
 */
#include "coordinator/commands.h"
#include "proto/keys.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <string.h>
#include <sysexits.h>

static const char help[] =
    "tern keygen: makes a key pair for a coordinator or a worker.\n"
    "\n"
    "usage: tern keygen FILE\n"
    "\n"
    "Writes both halves to FILE (mode 0600; an existing file is never overwritten) and prints the public half, which\n"
    "belongs into the allow-lists (`name role PUBLICKEY`) and cluster files of the machines it is to talk to.\n"
    "Keep FILE on the machine it was made on.\n"
    "\n"
    "      --json                the public half as a JSON object\n"
    "  -h, --help                this text\n";

static const struct option longs[] = {
    { "json", no_argument, NULL, 'j' },
    { "help", no_argument, NULL, 'h' },
    { NULL, 0, NULL, 0 },
};

/* Z85 has neither '"' nor '\\', so it can stand in JSON as it is. */
static enum tern_status print_public(const struct tern_key *key, int json, struct tern_err *err)
{
    char z85[TERN_Z85_CHARS + 1];

    tern_key_to_z85(key->public_key, z85);
    if (printf(json ? "{\"public\": \"%s\"}\n" : "%s\n", z85) < 0 || fflush(stdout) != 0)
        return TERN_FAIL_SYS(err, TERN_ERR_IO, errno, "cannot write to stdout: %s", strerror(errno));
    return TERN_OK;
}

static enum tern_status make_key(const char *path, int json, struct tern_err *err)
{
    struct tern_key key;
    enum tern_status st = tern_key_generate(&key, err);

    if (st)
        return st;
    st = tern_key_save(path, &key, err);
    if (!st)
        st = print_public(&key, json, err);
    tern_key_wipe(&key);
    return st;
}

int cmd_keygen(int argc, char **argv)
{
    struct tern_err err;
    int c, json = 0;

    opterr = 0;
    optind = 1;
    while ((c = getopt_long(argc, argv, "h", longs, NULL)) != -1) {
        if (c == 'h') {
            fputs(help, stdout);
            return EX_OK;
        }
        if (c != 'j') {
            (void)TERN_FAIL(&err, TERN_ERR_USAGE, "%s: unknown option; see --help", argv[optind - 1]);
            return cmd_fail("keygen", &err);
        }
        json = 1;
    }
    if (argc - optind != 1) {
        (void)TERN_FAIL(&err, TERN_ERR_USAGE, "name one file for the key, for example `tern keygen worker.key`");
        return cmd_fail("keygen", &err);
    }
    if (make_key(argv[optind], json, &err) != TERN_OK)
        return cmd_fail("keygen", &err);
    return EX_OK;
}
