/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Everything a command that runs a model sets up: file, tokenizer, embedding and head, pool, pipeline,
 * scheduler.
 *
 * In two moves, because the size of the KV cache follows from the prompts and those need the tokenizer:
 * session_open reads the model and leaves the layers alone, session_connect opens the pipeline (in-process,
 * child processes or a cluster).
 */
#ifndef TERN_COORDINATOR_SESSION_H
#define TERN_COORDINATOR_SESSION_H

#include "coordinator/engine_options.h"
#include "coordinator/layer_split.h"
#include "coordinator/local_workers.h"
#include "coordinator/pipe.h"
#include "coordinator/sched.h"
#include "engine/arch.h"
#include "engine/gguf.h"
#include "engine/model.h"
#include "engine/pool.h"
#include "engine/tokenizer.h"

struct session {
    const struct engine_options *o; /* borrowed */
    struct tern_gguf *gguf;
    struct tern_arch arch;
    struct tern_kernels kern;
    struct tern_pool *pool;
    struct tern_tokenizer *tok;
    struct tern_model *model;         /* embedding and head only */
    struct tern_head *head;           /* NULL with no_head */
    uint32_t ctx;                     /* positions of one sequence */
    struct tern_layout_choice layout; /* of tiles on this machine; not chosen with --cluster */
    bool layout_chosen;
    struct layer_split split; /* of --local: as given, or as measured by the first session_connect */
    struct cluster_spec cluster;
    struct tern_key key;
    struct local_workers *workers;
    struct pipe *pipe;
    int dump_fd; /* of --dump-steps, or -1 */
    struct sched *sched;
};

enum tern_status session_open(const struct engine_options *o, struct session **out,
                              struct tern_err *err) TERN_MUST_CHECK;

/* What the pipeline and the scheduler are made for. */
struct session_room {
    uint32_t n_at_once;  /* sequences computed at a time, at least 1 */
    uint32_t n_prefixes; /* further slots, in which the KV of ended ones may stay */
    uint32_t max_len;    /* positions of one sequence */
    uint32_t n_pages;    /* of the KV cache; 0: max_len for each of n_at_once */
    void (*on_step)(void *user, const struct sched_trace *t); /* as in sched_options, or NULL */
    void *on_step_user;
};

/* TERN_END: interrupted. */
enum tern_status session_connect(struct session *s, const struct session_room *room,
                                 struct tern_err *err) TERN_MUST_CHECK;
/* Closes the pipeline and ends --local's workers; session_connect may follow.  No sequence may be in use. */
void session_disconnect(struct session *s);

void session_close(struct session **s);

/* Appends the ids of text with the model's BOS and EOS rules, control tokens recognised if parse_special; at
 * least one, all below n_vocab. */
enum tern_status session_encode(const struct session *s, const char *text, size_t len, bool parse_special,
                                struct tern_ids *out, struct tern_err *err) TERN_MUST_CHECK;

/* What session_encode refuses in ids [first, n) that somebody else made of a text: none, or one that has no
 * row in the embedding. */
enum tern_status session_check_ids(const struct session *s, const struct tern_ids *ids, size_t first,
                                   struct tern_err *err) TERN_MUST_CHECK;

/* With --dump-steps: writes a prompt that is going to be sent, ids [first, n); session_encode has done so. */
enum tern_status session_dump(const struct session *s, const char *text, size_t len,
                              const struct tern_ids *ids, size_t first, struct tern_err *err) TERN_MUST_CHECK;

#endif
