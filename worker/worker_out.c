/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Building and sending messages, control and steps.
 */
#include "worker/worker_out.h"

#include "worker/worker_run.h"

#include <string.h>

static char software[] = "ternd " TERN_VERSION;

/* protobuf-c has no const; nothing writes through these pointers when serialising. */
static char *unconst(const char *s)
{
    return (char *)(uintptr_t)s;
}

static Tern__Header header_of(const struct worker *w, Tern__Header__BodyCase body)
{
    Tern__Header h = TERN__HEADER__INIT;

    h.version = TERN_WIRE_VERSION;
    h.epoch = w->epoch;
    h.layout = w->layout;
    h.body_case = body;
    return h;
}

static enum tern_status post(struct worker *w, const uint8_t *route, size_t route_len, const Tern__Header *h)
{
    struct tern_err err;
    size_t len = 0;
    enum tern_status st = tern_wire_put(h, w->header, sizeof w->header, &len, &err);

    if (!st)
        st = w->o.net->reply(w->o.net->impl, route, route_len, w->header, len, NULL, 0, &err);
    if (st && st != TERN_AGAIN && st != TERN_ERR_PEER)
        tern_log(TERN_LOG_WARN, "send", "message=%s %s", tern_wire_body_name(h->body_case), err.text);
    return st;
}

static enum tern_status post_owner(struct worker *w, const Tern__Header *h)
{
    enum tern_status st = post(w, w->route, w->route_len, h);

    if (st == TERN_ERR_PEER)
        w->owner_gone = true;
    return st;
}

enum tern_status worker_say_welcome(struct worker *w)
{
    const struct worker_file *f = w->o.file;
    Tern__Header h = header_of(w, TERN__HEADER__BODY_WELCOME);
    Tern__Welcome b = TERN__WELCOME__INIT;

    b.name = unconst(w->o.name);
    b.software = software;
    b.cpu = unconst(tern_cpu_name(w->o.kern->level));
    b.threads = tern_pool_threads(w->o.pool);
    b.memory_limit = w->o.memory_limit;
    b.arch_hash = (ProtobufCBinaryData){ TERN_HASH_BYTES, (uint8_t *)(uintptr_t)f->arch_hash };
    b.first_layer = f->first;
    b.last_layer = f->last;
    h.welcome = &b;
    return post_owner(w, &h);
}

void worker_say_busy(struct worker *w, const struct worker_mail *to, uint64_t epoch)
{
    Tern__Header h = header_of(w, TERN__HEADER__BODY_BUSY);
    Tern__Busy busy = TERN__BUSY__INIT;
    Tern__Bye bye = TERN__BYE__INIT;

    h.epoch = 0;
    h.layout = 0;
    busy.holder = w->owner_name;
    h.busy = &busy;
    if (w->state == W_DRAINING) {
        h.epoch = epoch;
        h.body_case = TERN__HEADER__BODY_BYE;
        bye.reason = TERN_BYE_DRAINING;
        h.bye = &bye;
    }
    /* Whoever is gone by now needs no answer. */
    if (post(w, to->route, to->route_len, &h) != TERN_OK)
        tern_log(TERN_LOG_DEBUG, "send", "message=%s was not sent", tern_wire_body_name(h.body_case));
}

void worker_say_loading(struct worker *w)
{
    Tern__Header h = header_of(w, TERN__HEADER__BODY_LOADING);
    Tern__Loading b = TERN__LOADING__INIT;

    worker_loader_progress(w->loader, &b.done, &b.total);
    h.loading = &b;
    /* The next one will do when there is no room. */
    (void)post_owner(w, &h);
}

enum tern_status worker_say_ready(struct worker *w)
{
    const struct tern_model *m = worker_loader_model(w->loader);
    Tern__Header h = header_of(w, TERN__HEADER__BODY_READY);
    Tern__Ready b = TERN__READY__INIT;

    TERN_BUG_IF(!m || !w->run);
    b.weight_bytes = m->tiles_bytes + m->norms_bytes;
    b.kv_bytes = tern_stage_kv_bytes(w->run->stage);
    b.scratch_bytes = tern_stage_scratch_bytes(w->run->stage) + w->plan.steps_bytes;
    h.ready = &b;
    return post_owner(w, &h);
}

void worker_say_pong(struct worker *w, uint64_t seq)
{
    Tern__Header h = header_of(w, TERN__HEADER__BODY_PONG);
    Tern__Pong b = TERN__PONG__INIT;

    b.seq = seq;
    b.steps = w->run ? tern_stage_steps(w->run->stage) : 0;
    b.busy_us = w->run ? tern_stage_busy_us(w->run->stage) : 0;
    b.rejected = w->n_rejected + w->o.net->n_refused(w->o.net->impl);
    b.memory_bytes = tern_memory_resident();
    b.clock_us = tern_now_ns() / 1000;
    h.pong = &b;
    /* Without room there is enough on its way to count as life. */
    (void)post_owner(w, &h);
}

void worker_say_bye(struct worker *w)
{
    Tern__Header h = header_of(w, TERN__HEADER__BODY_BYE);
    Tern__Bye b = TERN__BYE__INIT;

    b.reason = TERN_BYE_DRAINING;
    h.bye = &b;
    (void)post_owner(w, &h);
}

void worker_say_fault(struct worker *w, const struct tern_err *why)
{
    Tern__Header h = header_of(w, TERN__HEADER__BODY_FAULT);
    Tern__Fault b = TERN__FAULT__INIT;

    b.status = (uint32_t)why->status;
    b.text = unconst(why->text);
    h.fault = &b;
    (void)post_owner(w, &h);
}

/* -- steps ----------------------------------------------------------------------------------------------- */

enum tern_status worker_flush(struct worker *w, struct tern_err *err)
{
    struct worker_run *r = w->run;
    enum tern_status st = r ? worker_run_send(r, err) : TERN_OK;

    if (st == TERN_ERR_PEER && w->plan.is_last)
        w->owner_gone = true;
    return st == TERN_AGAIN || w->owner_gone ? TERN_OK : st;
}
