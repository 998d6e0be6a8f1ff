/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `tern pull REPO[:FILE]`: gets a model from a server with Hugging Face's layout of URLs and prints where it
 * is.
 */
#include "coordinator/commands.h"
#include "coordinator/interrupt.h"
#include "coordinator/json_out.h"
#include "coordinator/option_habits.h"
#include "coordinator/pull.h"
#include "engine/option.h"

#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>

#define DEFAULT_TIMEOUT_S 30
#define DEFAULT_RETRIES   5

static const char help[] =
    "tern pull: gets a model from Hugging Face, or a server with its layout of addresses.\n"
    "\n"
    "usage: tern pull REPO[@REVISION][:FILE] [options]\n"
    "\n"
    "Prints the path of the model on stdout, and nothing else there:\n"
    "    tern run -m \"$(tern pull microsoft/bitnet-b1.58-2B-4T-gguf)\" -p \"...\"\n"
    "What is there and whole is not loaded again; what was interrupted goes on where it stopped; large\n"
    "files are checked against the SHA-256 of the listing.\n"
    "\n"
    "FILE is a name or a pattern ('*i2_s.gguf').  Without it: the only .gguf (with all its parts), or the\n"
    "only one with i2_s in its name; else config, tokenizer and .safetensors of a Hugging Face folder,\n"
    "whose path is then printed.\n"
    "\n"
    "      --list                show the files (* is what would be loaded) and load nothing; with\n"
    "                            --json as one object\n"
    "      --revision NAME       branch, tag or commit (default: main)\n"
    "      --force               load again what is there\n"
    "      --timeout SECONDS     without data, until a connection is given up (default: 30)\n"
    "      --retries N           after what may pass, without a byte gained (default: 5)\n"
    "  -q, --quiet               no progress\n"
    "  -h, --help                this text\n"
    "\n"
    "environment:\n"
    "  HF_ENDPOINT               the server (default: https://huggingface.co)\n"
    "  HF_TOKEN                  for private and gated models; else the file ~/.cache/huggingface/token\n"
    "  SSL_CERT_FILE             certificates to trust instead of the system's\n"
    "  TERN_MODELS               where models are kept, as ORG/NAME/FILE\n"
    "                            (default: ~/.local/share/tern/models)\n";

enum { OPT_LIST = 256, OPT_JSON, OPT_REVISION, OPT_FORCE, OPT_TIMEOUT, OPT_RETRIES };

static const struct option longs[] = {
    { "list", no_argument, NULL, OPT_LIST },
    { "json", no_argument, NULL, OPT_JSON },
    { "revision", required_argument, NULL, OPT_REVISION },
    { "force", no_argument, NULL, OPT_FORCE },
    { "timeout", required_argument, NULL, OPT_TIMEOUT },
    { "retries", required_argument, NULL, OPT_RETRIES },
    { "quiet", no_argument, NULL, 'q' },
    { "help", no_argument, NULL, 'h' },
    { NULL, 0, NULL, 0 },
};

struct options {
    struct pull_spec spec;
    uint32_t timeout_s, retries;
    bool list, json, force, quiet;
};

/* TERN_END: --help was printed. */
static enum tern_status parse(int argc, char **argv, struct options *o, struct tern_err *err)
{
    const char *revision = NULL;
    enum tern_status st = TERN_OK;
    int c;

    *o = (struct options){ .timeout_s = DEFAULT_TIMEOUT_S, .retries = DEFAULT_RETRIES };
    optind = 1;
    while (!st && (c = option_next(argc, argv, ":qh", longs, NULL, err)) != -1) {
        switch (c) {
        case OPT_LIST: o->list = true; break;
        case OPT_JSON: o->json = true; break;
        case OPT_REVISION: revision = optarg; break;
        case OPT_FORCE: o->force = true; break;
        case OPT_TIMEOUT: st = tern_option_u32("--timeout", optarg, 1, 3600, &o->timeout_s, err); break;
        case OPT_RETRIES: st = tern_option_u32("--retries", optarg, 0, 1000, &o->retries, err); break;
        case 'q': o->quiet = true; break;
        case 'h': fputs(help, stdout); return TERN_END;
        default: return TERN_ERR_USAGE;
        }
    }
    if (st)
        return st;
    if (optind + 1 != argc)
        return TERN_FAIL(err, TERN_ERR_USAGE,
                         optind == argc ? "which model? name its repository, as in `tern pull ORG/NAME`"
                                        : "one repository at a time; see --help");
    if (o->json && !o->list)
        return TERN_FAIL(err, TERN_ERR_USAGE, "--json is for --list: of a model its path is printed");
    return pull_spec_parse(argv[optind], revision, &o->spec, err);
}

/* -- the listing ----------------------------------------------------------------------------------------- */

/* A body in memory. */
struct text_sink {
    struct pull_sink sink; /* first */
    char *text;            /* [PULL_MAX_LISTING] */
};

static enum tern_status put_text(struct pull_sink *s, const void *bytes, size_t n, struct tern_err *err)
{
    (void)err;
    memcpy(((struct text_sink *)s)->text + s->have, bytes, n);
    return TERN_OK;
}

static enum tern_status restart_text(struct pull_sink *s, struct tern_err *err)
{
    (void)s;
    (void)err;
    return TERN_OK;
}

static enum tern_status get_listing(const struct options *o, struct pull_http *h, struct pull_list *list,
                                    struct tern_err *err)
{
    struct text_sink t = {
        .sink = { .size = UINT64_MAX, .max = PULL_MAX_LISTING, .put = put_text, .restart = restart_text }
    };
    char path[PULL_MAX_URL], revision[3 * PULL_MAX_REVISION + 1], what[PULL_MAX_REPO + 40];
    enum tern_status st;

    (void)snprintf(what, sizeof what, "the listing of %s", o->spec.repo);
    if (!pull_escape(o->spec.revision, false, revision, sizeof revision))
        return TERN_FAIL(err, TERN_ERR_LIMIT, "%s: the revision's name is too long", what);
    (void)snprintf(path, sizeof path, "/api/models/%s/revision/%s?blobs=true", o->spec.repo, revision);
    t.text = malloc(PULL_MAX_LISTING);
    if (!t.text)
        return TERN_FAIL(err, TERN_ERR_MEMORY, "no memory for %s", what);
    st = pull_http_fetch(h, path, o->spec.repo, what, &t.sink, err);
    if (!st)
        st = pull_list_parse(t.text, (size_t)t.sink.have, list, err);
    free(t.text);
    if (!st && list->n_refused)
        fprintf(stderr, "tern pull: note: %zu files of %s have names that are not safe here; left out\n",
                list->n_refused, o->spec.repo);
    return st;
}

/* chosen: whether the choice among them counts. */
static enum tern_status print_json(const struct options *o, const struct pull_list *list, bool chosen,
                                   struct tern_err *err)
{
    json_t *files = json_array(),
           *root = json_pack("{s:s, s:o?, s:o}", "repository", o->spec.repo, "commit",
                             *list->commit ? json_string(list->commit) : json_null(), "files", files);

    for (size_t i = 0; root && i < list->n; i++) {
        const struct pull_entry *e = &list->entries[i];
        json_t *one =
            json_pack("{s:s, s:o?, s:o?, s:b}", "path", e->path, "size",
                      e->has_size ? json_integer((json_int_t)e->size) : json_null(), "sha256",
                      e->is_sha256 ? json_string(e->id) : json_null(), "chosen", e->chosen && chosen);

        if (!one || json_array_append_new(files, one)) {
            json_decref(root);
            root = NULL;
        }
    }
    return json_out_print(&root, 9, err);
}

static enum tern_status print_listing(const struct options *o, struct pull_list *list, struct tern_err *err)
{
    struct tern_err why;
    size_t model;
    enum tern_status st = pull_list_choose(list, &o->spec, &model, &why);

    if (st)
        fprintf(stderr, "tern pull: %s\n", why.text);
    if (o->json)
        return print_json(o, list, !st, err);
    for (size_t i = 0; i < list->n; i++) {
        const struct pull_entry *e = &list->entries[i];

        if (e->has_size)
            printf("%c %14llu  %s\n", e->chosen && !st ? '*' : ' ', (unsigned long long)e->size, e->path);
        else
            printf("%c %14s  %s\n", e->chosen && !st ? '*' : ' ', "?", e->path);
    }
    return cmd_flush(err);
}

/* -- the command ----------------------------------------------------------------------------------------- */

static enum tern_status load_all(const struct options *o, struct pull_http *h, struct pull_list *list,
                                 struct tern_err *err)
{
    char folder[PATH_MAX];
    struct pull_job job = { .http = h,
                            .spec = &o->spec,
                            .folder = folder,
                            .revision = *list->commit ? list->commit : o->spec.revision,
                            .force = o->force,
                            .quiet = o->quiet };
    size_t model, n_fresh = 0, n = 0;
    uint64_t bytes = 0;
    enum tern_status st = pull_folder(&o->spec, folder, sizeof folder, err);

    if (st || (st = pull_list_choose(list, &o->spec, &model, err)))
        return st;
    for (size_t i = 0; i < list->n; i++) {
        bool fresh;

        if (!list->entries[i].chosen)
            continue;
        if ((st = interrupt_check(err)) || (st = pull_file_load(&job, &list->entries[i], &fresh, err)))
            return st;
        n++;
        n_fresh += fresh;
        bytes += fresh ? list->entries[i].size : 0;
    }
    if (!o->quiet)
        fprintf(stderr, "tern pull: %s: %zu files, %zu of them loaded now (%.1f MB)\n", o->spec.repo, n,
                n_fresh, (double)bytes / 1e6);
    printf("%s%s%s\n", folder, model == SIZE_MAX ? "" : "/",
           model == SIZE_MAX ? "" : list->entries[model].path);
    return cmd_flush(err);
}

int cmd_pull(int argc, char **argv)
{
    struct options o;
    struct pull_http_options ho;
    struct pull_http *h = NULL;
    struct pull_list list = { 0 };
    struct tern_err err;
    enum tern_status st = parse(argc, argv, &o, &err);

    if (st)
        return st == TERN_END ? EX_OK : cmd_fail("pull", &err);
    signal(SIGPIPE, SIG_IGN);
    interrupt_catch();
    ho = (struct pull_http_options){ .timeout_s = o.timeout_s, .retries = o.retries, .quiet = o.quiet };
    if (!(st = pull_http_open(&ho, &h, &err)) && !(st = get_listing(&o, h, &list, &err)))
        st = o.list ? print_listing(&o, &list, &err) : load_all(&o, h, &list, &err);
    pull_list_fini(&list);
    pull_http_close(&h);
    return st ? cmd_fail_or_end("pull", &err) : EX_OK;
}
