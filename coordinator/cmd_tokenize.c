/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `tern tokenize`: what a text looks like to the model, and the way back.
 */
#include "coordinator/commands.h"
#include "coordinator/engine_options.h"
#include "coordinator/json_out.h"
#include "coordinator/option_habits.h"
#include "engine/base/limits.h"
#include "engine/option.h"
#include "engine/pretokenizer.h"
#include "engine/tokenizer.h"
#include "engine/utf8.h"

#include <getopt.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>

enum { OPT_PRE = 256, OPT_IDS, OPT_JSON, OPT_NO_BOS, OPT_PARSE, OPT_NO_PARSE, OPT_DECODE };

static const struct option longs[] = {
    { "model", required_argument, NULL, 'm' },
    { "pre", required_argument, NULL, OPT_PRE },
    TERN_FILE_LONG_OPTIONS,
    { "prompt", required_argument, NULL, 'p' },
    { "file", required_argument, NULL, 'f' },
    { "ids", no_argument, NULL, OPT_IDS },
    { "json", no_argument, NULL, OPT_JSON },
    { "no-bos", no_argument, NULL, OPT_NO_BOS },
    { "parse-special", no_argument, NULL, OPT_PARSE },
    { "no-parse-special", no_argument, NULL, OPT_NO_PARSE },
    { "decode", required_argument, NULL, OPT_DECODE },
    { "help", no_argument, NULL, 'h' },
    { NULL, 0, NULL, 0 },
};

static const char help[] =
    "tern tokenize: shows the tokens of a text, one a line, or the text of tokens.\n"
    "\n"
    "usage: tern tokenize [-m FILE] [-p TEXT | -f FILE | --decode IDS] [options]\n"
    "\n"
    "Without -p, -f and --decode the text is read from stdin.\n"
    "\n" TERN_FILE_HELP_MODEL "  -p, --prompt TEXT         the text\n"
    "  -f, --file FILE           the text of a file (- is stdin)\n"
    "      --decode IDS          print the text of these ids: numbers with commas or blanks between\n"
    "                            them (- reads them from stdin)\n"
    "      --ids                 only the ids, on one line\n"
    "      --json                an array of {id, piece}, and bytes where a piece is not UTF-8 by itself\n"
    "      --no-bos              do not put the model's BOS and EOS around the text; with --decode do\n"
    "                            not print them\n"
    "      --no-parse-special    \"<|eot_id|>\" in the text is text; with --decode special tokens\n"
    "                            print nothing\n"
    "      --parse-special       it is the token (the default)\n";
static const char help_end[] = "  -h, --help                this text\n";

struct options {
    char model[4096];
    const char *pre, *prompt, *file, *decode;
    bool ids, json, no_bos, literal;
    struct tern_file_options files;
};

static enum tern_status parse_one(struct options *o, int c, const char *arg, struct tern_err *err)
{
    switch (c) {
    case 'm':
        if (snprintf(o->model, sizeof o->model, "%s", arg) >= (int)sizeof o->model)
            return TERN_FAIL(err, TERN_ERR_USAGE, "-m: the path is too long");
        if (!*arg)
            return TERN_FAIL(err, TERN_ERR_USAGE, "-m: the path is empty");
        break;
    case 'p': o->prompt = arg; break;
    case 'f': o->file = arg; break;
    case OPT_PRE: o->pre = arg; break;
    case OPT_IDS: o->ids = true; break;
    case OPT_JSON: o->json = true; break;
    case OPT_NO_BOS: o->no_bos = true; break;
    case OPT_PARSE: o->literal = false; break;
    case OPT_NO_PARSE: o->literal = true; break;
    case OPT_DECODE: o->decode = arg; break;
    default: return tern_file_option(&o->files, c, arg, err);
    }
    return TERN_OK;
}

/* TERN_END: --help was printed. */
static enum tern_status parse(int argc, char **argv, struct options *o, struct tern_err *err)
{
    int c;

    memset(o, 0, sizeof *o);
    optind = 1;
    while ((c = option_next(argc, argv, ":m:p:f:h", longs, NULL, err)) != -1) {
        enum tern_status st;

        if (c == 'h') {
            fputs(help, stdout);
            tern_pretok_help(stdout);
            fputs(tern_file_option_help, stdout);
            fputs(help_end, stdout);
            return TERN_END;
        }
        if (c == '?')
            return TERN_ERR_USAGE;
        if ((st = parse_one(o, c, optarg, err)) != TERN_OK)
            return st;
    }
    if (optind < argc)
        return TERN_FAIL(err, TERN_ERR_USAGE, "'%s' is not an option; a text goes behind -p", argv[optind]);
    if ((o->prompt != NULL) + (o->file != NULL) + (o->decode != NULL) > 1)
        return TERN_FAIL(err, TERN_ERR_USAGE, "-p, -f and --decode exclude each other: give one of them");
    if (o->ids && o->json)
        return TERN_FAIL(err, TERN_ERR_USAGE, "--ids and --json exclude each other: give one of them");
    if (o->decode && (o->ids || o->json))
        return TERN_FAIL(err, TERN_ERR_USAGE, "--decode prints text: --ids and --json make no sense with it");
    return o->model[0] ? TERN_OK : tern_option_default_model("-m", o->model, sizeof o->model, err);
}

/* -- decode ---------------------------------------------------------------------------------------- */

/* "[4080, 2091]", "4080 2091", ...: brackets, commas and blanks only separate. */
static enum tern_status parse_ids(const char *text, size_t len, uint32_t n_vocab, struct tern_ids *out,
                                  struct tern_err *err)
{
    size_t at = 0;
    enum tern_status st;

    while (at < len) {
        uint64_t id = 0;
        size_t begin, n_digits;

        if (text[at] != '\0' && strchr("[], \t\r\n", text[at])) {
            at++;
            continue;
        }
        for (begin = at; at < len && text[at] >= '0' && text[at] <= '9' && id < n_vocab; at++)
            id = id * 10 + (uint64_t)(text[at] - '0');
        n_digits = strspn(text + begin, "0123456789");
        if (id >= n_vocab)
            return TERN_FAIL(
                err, TERN_ERR_USAGE, "--decode: id %.*s%s is outside the vocabulary of %u tokens",
                n_digits < 20 ? (int)n_digits : 20, text + begin, n_digits > 20 ? "..." : "", n_vocab);
        if (at == begin)
            return TERN_FAIL(err, TERN_ERR_USAGE, "--decode: '%.20s' is not a list of ids", text + begin);
        if ((st = tern_ids_reserve(out, 1, err)) != TERN_OK)
            return st;
        out->ids[out->n++] = (int32_t)id;
    }
    return TERN_OK;
}

static void print_decoded(const struct options *o, const struct tern_tokenizer *t, const struct tern_ids *ids)
{
    for (size_t i = 0; i < ids->n; i++) {
        struct tern_str s = tern_tokenizer_piece_after(t, i ? ids->ids[i - 1] : -1, ids->ids[i], !o->literal);
        bool edge = (i == 0 && ids->ids[i] == tern_tokenizer_bos(t)) ||
                    (i + 1 == ids->n && ids->ids[i] == tern_tokenizer_eos(t));

        if (!(o->no_bos && edge))
            fwrite(s.ptr, 1, s.len, stdout);
    }
}

/* -- encode ---------------------------------------------------------------------------------------- */

/* One token on one line: what would move a cursor, and bytes that are not UTF-8, as escapes. */
static void print_piece(struct tern_str s)
{
    size_t n;

    for (size_t i = 0; i < s.len; i += n) {
        const uint8_t *p = (const uint8_t *)s.ptr + i;
        int32_t code = tern_utf8_sequence(p, s.len - i, &n);
        bool control = code > 0 && (code - 1 < 0x20 || (code - 1 >= 0x7f && code - 1 < 0xa0));

        if (*p == '\n' || *p == '\t' || *p == '\r' || *p == '\\')
            printf("\\%c", *p == '\n' ? 'n' : *p == '\t' ? 't' : *p == '\r' ? 'r' : '\\');
        else if (code > 0 && !control)
            fwrite(p, 1, n, stdout);
        else
            for (size_t k = 0; k < n; k++)
                printf("\\x%02x", p[k]);
    }
}

static enum tern_status print_json_token(int32_t id, struct tern_str s, struct tern_err *err)
{
    json_t *o = json_pack("{s:i, s:o}", "id", (int)id, "piece", json_out_text(s));
    bool valid = tern_utf8_valid_prefix((const uint8_t *)s.ptr, s.len) == s.len;

    if (o && !valid) {
        json_t *bytes = json_array();

        for (size_t i = 0; i < s.len; i++)
            json_array_append_new(bytes, json_integer((uint8_t)s.ptr[i]));
        json_object_set_new(o, "bytes", bytes);
    }
    if (!o)
        return TERN_FAIL(err, TERN_ERR_MEMORY, "no memory to print token %d", id);
    json_dumpf(o, stdout, JSON_COMPACT | JSON_PRESERVE_ORDER);
    json_decref(o);
    return TERN_OK;
}

static enum tern_status print_tokens(const struct options *o, const struct tern_tokenizer *t,
                                     const struct tern_ids *ids, struct tern_err *err)
{
    enum tern_status st = TERN_OK;

    if (o->json)
        putchar('[');
    for (size_t i = 0; i < ids->n && st == TERN_OK; i++) {
        struct tern_str s = tern_tokenizer_piece(t, ids->ids[i], true);

        if (o->ids) {
            printf("%s%d", i ? " " : "", ids->ids[i]);
        } else if (o->json) {
            fputs(i ? ",\n " : "", stdout);
            st = print_json_token(ids->ids[i], s, err);
        } else {
            printf("%6d -> '", ids->ids[i]);
            print_piece(s);
            fputs("'\n", stdout);
        }
    }
    if (st == TERN_OK && (o->json || o->ids))
        fputs(o->json ? "]\n" : "\n", stdout);
    return st;
}

static enum tern_status encode(const struct options *o, const struct tern_tokenizer *t, struct tern_ids *ids,
                               struct tern_err *err)
{
    const char *text = o->prompt;
    char *from_file = NULL;
    size_t len = text ? strlen(text) : 0;
    enum tern_status st = TERN_OK;

    if (!text) {
        st = cmd_read_file(o->file ? o->file : "-", TERN_MAX_TEXT_BYTES, &from_file, &len, err);
        text = from_file;
    }
    if (st == TERN_OK)
        st = tern_tokenizer_encode(t, text, len, !o->no_bos, !o->literal, ids, err);
    free(from_file);
    return st == TERN_OK ? print_tokens(o, t, ids, err) : st;
}

static enum tern_status decode(const struct options *o, const struct tern_tokenizer *t, struct tern_ids *ids,
                               struct tern_err *err)
{
    const char *text = o->decode;
    char *from_stdin = NULL;
    size_t len = strlen(text);
    enum tern_status st = TERN_OK;

    if (strcmp(text, "-") == 0) {
        st = cmd_read_file("-", TERN_MAX_TEXT_BYTES, &from_stdin, &len, err);
        text = from_stdin;
    }
    if (st == TERN_OK)
        st = parse_ids(text, len, tern_tokenizer_n_vocab(t), ids, err);
    if (st == TERN_OK)
        print_decoded(o, t, ids);
    free(from_stdin);
    return st;
}

int cmd_tokenize(int argc, char **argv)
{
    struct options o;
    struct tern_gguf *g = NULL;
    struct tern_tokenizer *t = NULL;
    struct tern_ids ids = { 0 };
    struct tern_err err;
    enum tern_status st = parse(argc, argv, &o, &err);

    if (st)
        return st == TERN_END ? EX_OK : cmd_fail("tokenize", &err);
    signal(SIGPIPE, SIG_IGN);
    if (!(st = tern_model_file_open(o.model, &o.files, &g, &err)) &&
        !(st = tern_tokenizer_new(g, o.pre, &t, &err))) {
        tern_gguf_close(&g);
        st = o.decode ? decode(&o, t, &ids, &err) : encode(&o, t, &ids, &err);
    }
    if (!st)
        st = cmd_flush(&err);
    tern_gguf_close(&g);
    tern_tokenizer_free(&t);
    free(ids.ids);
    return st ? cmd_fail("tokenize", &err) : EX_OK;
}
