/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Getting a model from a server with Hugging Face's layout of URLs, in four parts: what is wanted and where
 * it is kept (pull_name.c), which files there are and which of them make a model (pull_list.c), one body
 * over HTTP with retries (pull_http.c), one file on the disk: resumed, checked, put in place (pull_file.c).
 *
 * The server is a stranger: names, sizes, redirects and bodies are checked here, and nothing is written
 * outside the folder of the repository.  A file is there under its name only when it is whole.
 *
 * Kept are ROOT/ORG/NAME/FILE, with ROOT $TERN_MODELS, $XDG_DATA_HOME/tern/models or
 * ~/.local/share/tern/models; of a revision other than main, ROOT/ORG/NAME@REVISION/FILE.  A folder .pull
 * beside the files has what is on its way (HASH.ID.part) and, for what is whole, a note of the size and time
 * it had when it was checked.
 *
 * Thread: one at a time.
 */
#ifndef TERN_COORDINATOR_PULL_H
#define TERN_COORDINATOR_PULL_H

#include "engine/base/status.h"

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PULL_MAX_REPO     200 /* bytes of "ORG/NAME"; names there have at most 96 a part */
#define PULL_MAX_REVISION 128
#define PULL_MAX_PATH     400         /* of a file within its repository */
#define PULL_MAX_URL      4096        /* 3 bytes for each of a path's, and the rest */
#define PULL_MAX_LISTING  (16u << 20) /* bytes of JSON: a hundred thousand files */
#define PULL_MAX_FILE     (UINT64_C(1) << 42)

/* -- names (pull_name.c) --------------------------------------------------------------------------------- */

struct pull_spec {
    char repo[PULL_MAX_REPO + 1];
    char revision[PULL_MAX_REVISION + 1]; /* "main" when none was named */
    char file[PULL_MAX_PATH + 1];         /* name or pattern; empty: choose */
};

/* "REPO[@REVISION][:FILE]"; revision: of --revision, or NULL. */
enum tern_status pull_spec_parse(const char *text, const char *revision, struct pull_spec *out,
                                 struct tern_err *err) TERN_MUST_CHECK;

/* A path within a repository that is safe below a folder of ours: relative, no "..", nothing hidden, no
 * control characters, not long. */
bool pull_path_ok(const char *path);

/* The folder of the repository, by the environment. */
enum tern_status pull_folder(const struct pull_spec *spec, char *out, size_t cap,
                             struct tern_err *err) TERN_MUST_CHECK;

/* text with everything but letters, digits and "-._~" (and '/', if asked) as %XX; false when it does not
 * fit. */
bool pull_escape(const char *text, bool keep_slash, char *out, size_t cap);

/* -- the listing (pull_list.c) --------------------------------------------------------------------------- */

struct pull_entry {
    char path[PULL_MAX_PATH + 1];
    uint64_t size;
    bool has_size;
    bool is_sha256; /* id is the SHA-256 of the content; else git's name of it, or empty */
    char id[65];    /* lower-case hex */
    bool chosen;
};

struct pull_list {
    struct pull_entry *entries; /* [n], in the listing's order */
    size_t n, n_refused;        /* names that pull_path_ok refuses: left out */
    char commit[65];            /* hex, or empty */
};

/* The answer of /api/models/REPO/revision/REVISION?blobs=true: json [len]. */
enum tern_status pull_list_parse(const char *json, size_t len, struct pull_list *out,
                                 struct tern_err *err) TERN_MUST_CHECK;
void pull_list_fini(struct pull_list *l);

/*
 * Marks what to load.  file: a name or a pattern ("*.gguf"), or empty: the only .gguf (with all its parts) or
 * the only one with i2_s in its name; else what a Hugging Face folder needs.  *main: the index of the file to
 * give to `tern run`, or SIZE_MAX when it is the folder.
 */
enum tern_status pull_list_choose(struct pull_list *l, const struct pull_spec *spec, size_t *main,
                                  struct tern_err *err) TERN_MUST_CHECK;

/* -- HTTP (pull_http.c) ---------------------------------------------------------------------------------- */

struct pull_http;

struct pull_http_options {
    unsigned timeout_s; /* without data, until a connection is given up */
    unsigned retries;   /* in a row without a byte gained */
    bool quiet;
};

/* Takes HF_ENDPOINT and the token from the environment. */
enum tern_status pull_http_open(const struct pull_http_options *o, struct pull_http **out,
                                struct tern_err *err) TERN_MUST_CHECK;
void pull_http_close(struct pull_http **h);

/* Where a body goes.  have: bytes that are there already, and those that came. */
struct pull_sink {
    uint64_t have;
    uint64_t size; /* of the whole; UINT64_MAX: not known, */
    uint64_t max;  /* and then at most this */
    bool pinned;   /* the address always means the same bytes: go on after `have`, not from the beginning */
    enum tern_status (*put)(struct pull_sink *s, const void *bytes, size_t n, struct tern_err *err);
    /* What is there is to be forgotten: the body begins at 0.  have is set by the caller. */
    enum tern_status (*restart)(struct pull_sink *s, struct tern_err *err);
};

/*
 * The body of the endpoint's PATH into the sink, from sink->have on if the server can.  Tries again after
 * what may pass, for as long as it helps.  what: for sentences and the progress bar ("FILE"); repo: for
 * sentences about missing rights.  TERN_END: interrupted.
 */
enum tern_status pull_http_fetch(struct pull_http *h, const char *path, const char *repo, const char *what,
                                 struct pull_sink *sink, struct tern_err *err) TERN_MUST_CHECK;

/* -- one file (pull_file.c) ------------------------------------------------------------------------------ */

struct pull_job {
    struct pull_http *http;
    const struct pull_spec *spec;
    const char *folder;   /* of the repository; made when missing */
    const char *revision; /* the commit that was listed, or the name of the revision */
    bool force;           /* load what is there already, too */
    bool quiet;
};

/* Leaves the entry whole at FOLDER/PATH.  *fresh: it was loaded, not there already. */
enum tern_status pull_file_load(const struct pull_job *job, const struct pull_entry *e, bool *fresh,
                                struct tern_err *err) TERN_MUST_CHECK;

#endif
