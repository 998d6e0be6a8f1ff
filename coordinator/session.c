/* SPDX-License-Identifier: Apache-2.0 */
/* Setting up a run: see session.h. */
#include "coordinator/session.h"

#include "coordinator/interrupt.h"
#include "coordinator/pipe_dump.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define DEFAULT_CTX     2048
#define JOIN_TIMEOUT_MS 4500 /* so that a sentence stands there within 5 s of the start */

/* -c against what the model was trained with. */
static void choose_ctx(struct session *s)
{
    const uint32_t trained = s->arch.n_ctx_train ? s->arch.n_ctx_train : DEFAULT_CTX;

    if (s->o->ctx_trained)
        s->ctx = trained;
    else if (s->o->ctx)
        s->ctx = s->o->ctx;
    else
        s->ctx = trained < DEFAULT_CTX ? trained : DEFAULT_CTX;
    if (s->ctx > trained && !s->o->quiet)
        fprintf(stderr,
                "tern: note: a context of %u is more than the %u positions the model was trained with\n",
                (unsigned)s->ctx, (unsigned)trained);
}

enum tern_status session_open(const struct engine_options *o, struct session **out, struct tern_err *err)
{
    struct tern_model_options mo = { 0 };
    struct session *s = calloc(1, sizeof *s);
    enum tern_status st;

    if (!s)
        return TERN_FAIL(err, TERN_ERR_MEMORY, "no memory to start");
    s->o = o;
    s->dump_fd = -1;
    s->split.n = o->n_split;
    memcpy(s->split.layers, o->split, sizeof o->split);
    mo.with_embd = true;
    tern_kernels_init(&s->kern, o->cpu);
    if ((st = o->dump_steps ? pipe_dump_create(o->dump_steps, &s->dump_fd, err) : TERN_OK) ||
        (st = tern_model_file_open(o->model, &o->file, &s->gguf, err)) ||
        (st = tern_arch_read(s->gguf, &s->arch, err)) ||
        (st = tern_tokenizer_new(s->gguf, o->pre, &s->tok, err)) ||
        (st = tern_pool_new(o->threads, &s->pool, err)) ||
        (st = tern_model_load(s->gguf, &s->arch, &s->kern, s->pool, &mo, &s->model, err)) ||
        (st = o->no_head ? TERN_OK
                         : tern_head_new(s->model, s->pool, o->head, SCHED_HEAD_ROWS, &s->head, err))) {
        session_close(&s);
        return st;
    }
    choose_ctx(s);
    *out = s;
    return TERN_OK;
}

static enum tern_status check_split(const struct session *s, struct tern_err *err)
{
    uint32_t sum = 0;

    for (uint32_t i = 0; i < s->split.n; i++)
        sum += s->split.layers[i];
    if (s->split.n && sum != s->arch.n_layers)
        return TERN_FAIL(err, TERN_ERR_USAGE, "--split adds up to %u layers and the model has %u",
                         (unsigned)sum, (unsigned)s->arch.n_layers);
    if (s->o->local > s->arch.n_layers)
        return TERN_FAIL(err, TERN_ERR_USAGE, "--local %u is more workers than the model has layers (%u)",
                         (unsigned)s->o->local, (unsigned)s->arch.n_layers);
    return TERN_OK;
}

/* Threads of each process with layers.  Of a child: what was asked for, else an even share, so that stages
 * working at once do not crowd each other. */
static unsigned stage_threads(const struct engine_options *o)
{
    return o->threads_given || !o->local ? o->threads : (o->threads + o->local - 1) / o->local;
}

/* For all processes on this machine at once: children that each measured would disturb each other.  With
 * the threads of one of them, for a single text is in one stage at a time. */
static enum tern_status choose_layout(struct session *s, struct tern_err *err)
{
    struct tern_pool *pool = s->pool, *own = NULL;
    enum tern_status st = TERN_OK;

    if (s->layout_chosen)
        return TERN_OK;
    if (stage_threads(s->o) != tern_pool_threads(pool)) {
        st = tern_pool_new(stage_threads(s->o), &own, err);
        pool = own;
    }
    if (st)
        return st;
    tern_layout_choose(s->o->layout, &s->kern, pool, &s->layout);
    tern_layout_log(&s->layout);
    tern_pool_free(&own);
    s->layout_chosen = true;
    return TERN_OK;
}

static enum tern_status start_workers(struct session *s, struct tern_err *err)
{
    const struct engine_options *o = s->o;
    struct local_workers_options lo = { 0 };
    enum tern_status st = check_split(s, err);

    if (st)
        return st;
    lo.n = o->local;
    lo.split = s->split.n ? s->split.layers : NULL;
    lo.model_path = o->model;
    lo.threads = stage_threads(o);
    lo.layout = tern_pack_layout_name(s->layout.layout);
    lo.cpu = o->cpu_given ? tern_cpu_name(o->cpu) : NULL;
    lo.file = &o->file;
    lo.verbose = o->verbose;
    return local_workers_start(&lo, &s->workers, &s->cluster, &s->key, err);
}

/* Steps on their way at once: one for each sequence that waits for a token, as links with a long delay hold
 * many; and for chunks of prompts, one in every stage and one on its way to each. */
static uint32_t steps_wanted(uint32_t n_stages, uint32_t n_at_once)
{
    const uint32_t n = 2 * n_stages + n_at_once;

    return n < TERN_MAX_STEPS_IN_FLIGHT ? n : TERN_MAX_STEPS_IN_FLIGHT;
}

static enum tern_status open_pipe(struct session *s, struct pipe_options *po, uint32_t n_at_once,
                                  struct tern_err *err)
{
    enum tern_status st = interrupt_check(err);

    if (st)
        return st;
    if (s->o->cluster) {
        if ((st = cluster_spec_read(s->o->cluster, &s->cluster, err)) ||
            (st = tern_key_load(s->o->key, &s->key, err)))
            return st;
        po->max_in_flight = po->max_in_flight ? po->max_in_flight : steps_wanted(s->cluster.n, n_at_once);
        return pipe_remote_open(po, &s->cluster, &s->key, &s->pipe, err);
    }
    if ((st = choose_layout(s, err)))
        return st;
    po->layout = s->layout.layout;
    if (!s->o->local)
        return pipe_local_open(po, &s->pipe, err);
    po->max_in_flight = po->max_in_flight ? po->max_in_flight : steps_wanted(s->o->local, n_at_once);
    if ((st = start_workers(s, err)) || (st = pipe_remote_open(po, &s->cluster, &s->key, &s->pipe, err)))
        return st;
    for (uint32_t i = 0; i < s->pipe->n_stages; i++)
        s->pipe->stages[i].layout = tern_pack_layout_name(s->layout.layout);
    return TERN_OK;
}

static enum tern_status check_room(const struct session_room *room, uint64_t n_pages, struct tern_err *err)
{
    const uint32_t n = room->n_at_once;

    if (n == 0 || room->max_len == 0 || n > TERN_MAX_SLOTS || room->n_prefixes > TERN_MAX_SLOTS - n ||
        room->max_len > TERN_MAX_CONTEXT || n_pages > UINT32_MAX)
        return TERN_FAIL(
            err, TERN_ERR_LIMIT,
            "%u sequences of %u positions and %u more that stay are more than a KV cache can hold",
            (unsigned)n, (unsigned)room->max_len, (unsigned)room->n_prefixes);
    return TERN_OK;
}

static enum tern_status connect_all(struct session *s, const struct session_room *room, bool measuring,
                                    struct tern_err *err)
{
    const uint32_t n_slots = room->n_at_once + room->n_prefixes;
    const uint64_t pages = ((uint64_t)room->max_len + TERN_PAGE - 1) / TERN_PAGE * room->n_at_once;
    const uint32_t chunk = s->o->chunk ? s->o->chunk : CHUNK_MOST;
    struct pipe_options po = { 0 };
    struct sched_options so = { 0 };
    enum tern_status st = check_room(room, pages, err);

    if (st)
        return st;
    po.gguf = s->gguf;
    po.arch = &s->arch;
    po.kern = &s->kern;
    po.pool = s->pool;
    po.boundary = s->o->wire;
    po.kv = s->o->kv;
    po.n_pages = room->n_pages ? room->n_pages : (uint32_t)pages;
    po.n_slots = n_slots;
    po.max_positions = room->max_len;
    po.max_rows = chunk + room->n_at_once < TERN_MAX_STEP_ROWS ? chunk + room->n_at_once : TERN_MAX_STEP_ROWS;
    po.max_in_flight = s->o->in_flight;
    po.dead_after_ms = s->o->dead_after_ms;
    po.step_timeout_ms = s->o->step_timeout_ms;
    po.join_timeout_ms = JOIN_TIMEOUT_MS;
    po.quiet = s->o->quiet || measuring;
    st = open_pipe(s, &po, room->n_at_once, err);
    if (!st && s->dump_fd >= 0 && !measuring)
        st = pipe_dump_wrap(&s->pipe, s->dump_fd, err);
    if (st)
        return st;
    so.pipe = s->pipe;
    so.model = s->model;
    so.head = s->head;
    so.boundary = s->o->wire;
    so.n_slots = n_slots;
    so.n_pages = po.n_pages;
    so.max_positions = room->max_len;
    so.n_at_once = room->n_at_once;
    so.chunk = s->o->chunk;
    so.on_step = room->on_step;
    so.on_step_user = room->on_step_user;
    return sched_new(&so, &s->sched, err);
}

static void tell_split(const struct session *s)
{
    fprintf(stderr, "tern: measured: a layer takes");
    for (uint32_t i = 0; i < s->split.n; i++)
        fprintf(stderr, "%s %.2f", i ? "," : "", s->split.layer_ms[i]);
    fprintf(stderr, " ms on each worker: layers");
    for (uint32_t i = 0; i < s->split.n; i++)
        fprintf(stderr, "%s %u", i ? "," : "", (unsigned)s->split.layers[i]);
    fputc('\n', stderr);
}

/* Through a pipeline of its own, with even shares. */
static enum tern_status measure_split(struct session *s, uint32_t n_at_once, struct tern_err *err)
{
    struct layer_times times = { .counting = false };
    const uint32_t n = layer_split_streams(n_at_once, s->o->local);
    const struct session_room room = { .n_at_once = n,
                                       .max_len = layer_split_positions(n),
                                       .on_step = layer_times_add,
                                       .on_step_user = &times };
    enum tern_status st = connect_all(s, &room, true, err);

    if (!st)
        st = layer_split_measure(s->sched, s->pipe, s->head != NULL, &s->kern, s->arch.n_vocab, n, &times,
                                 &s->split, err);
    session_disconnect(s);
    if (!st && !s->o->quiet)
        tell_split(s);
    return st;
}

enum tern_status session_connect(struct session *s, const struct session_room *room, struct tern_err *err)
{
    enum tern_status st = TERN_OK;

    if (s->o->split_measured && !s->split.measured && s->o->local > 1)
        st = measure_split(s, room->n_at_once, err);
    return st ? st : connect_all(s, room, false, err);
}

void session_disconnect(struct session *s)
{
    sched_free(&s->sched);
    if (s->pipe)
        s->pipe->close(s->pipe);
    s->pipe = NULL;
    if (s->workers)
        local_workers_stop(&s->workers);
    if (s->key.secret_key)
        tern_key_wipe(&s->key);
    memset(&s->cluster, 0, sizeof s->cluster);
}

void session_close(struct session **sp)
{
    struct session *s = *sp;

    if (!s)
        return;
    session_disconnect(s);
    if (s->dump_fd >= 0)
        close(s->dump_fd);
    tern_head_free(&s->head);
    tern_model_free(&s->model);
    tern_pool_free(&s->pool);
    tern_tokenizer_free(&s->tok);
    tern_gguf_close(&s->gguf);
    free(s);
    *sp = NULL;
}

enum tern_status session_check_ids(const struct session *s, const struct tern_ids *ids, size_t first,
                                   struct tern_err *err)
{
    if (ids->n == first)
        return TERN_FAIL(err, TERN_ERR_USAGE,
                         "the prompt is empty and this model has no token to begin a text with");
    for (size_t i = first; i < ids->n; i++)
        if (ids->ids[i] < 0 || (uint32_t)ids->ids[i] >= s->arch.n_vocab)
            return TERN_FAIL(err, TERN_ERR_FORMAT,
                             "%s: the tokenizer gives token %d but the embedding has only %u rows",
                             s->gguf->name, (int)ids->ids[i], (unsigned)s->arch.n_vocab);
    return TERN_OK;
}

enum tern_status session_encode(const struct session *s, const char *text, size_t len, bool parse_special,
                                struct tern_ids *out, struct tern_err *err)
{
    const size_t before = out->n;
    enum tern_status st = tern_tokenizer_encode(s->tok, text, len, true, parse_special, out, err);

    if (!st)
        st = session_check_ids(s, out, before, err);
    return st ? st : session_dump(s, text, len, out, before, err);
}

enum tern_status session_dump(const struct session *s, const char *text, size_t len,
                              const struct tern_ids *ids, size_t first, struct tern_err *err)
{
    enum tern_status st;

    if (s->dump_fd < 0)
        return TERN_OK;
    st = pipe_dump_write(s->dump_fd, text, len, err);
    return st ? st : pipe_dump_write(s->dump_fd, ids->ids + first, (ids->n - first) * sizeof *ids->ids, err);
}
