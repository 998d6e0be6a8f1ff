/* SPDX-License-Identifier: Apache-2.0 */
/* What all conversations have in common: see chat_partner.h. */
#include "coordinator/chat_partner.h"

#include <string.h>

void chat_close(struct chat **cp)
{
    struct chat *c = *cp;

    if (!c)
        return;
    transcript_free(&c->log);
    c->kind->close(c);
    *cp = NULL;
}

enum tern_status chat_begin(struct chat *c, struct tern_err *err)
{
    return c->kind->begin(c, err);
}

enum tern_status chat_ask(struct chat *c, const char *text, size_t len, struct tern_err *err)
{
    const size_t n_before = c->log.n;
    enum tern_status st = transcript_add(&c->log, TERN_CHAT_USER, text, len, err);

    if (st)
        return st;
    if (!(st = c->kind->ask(c, err)) &&
        (st = transcript_add(&c->log, TERN_CHAT_ASSISTANT, c->answer.text, c->answer.n_text, err)))
        c->kind->forget(c);
    if (st) {
        transcript_cut(&c->log, n_before);
        return st;
    }
    c->figures.n_answers++;
    return TERN_OK;
}

void chat_reset(struct chat *c)
{
    c->kind->forget(c);
    transcript_cut(&c->log, transcript_system(&c->log) ? 1 : 0);
}

enum tern_status chat_set_system(struct chat *c, const char *text, size_t len, struct tern_err *err)
{
    enum tern_status st = transcript_set_system(&c->log, text, len, err);

    if (!st)
        c->kind->forget(c);
    return st;
}

enum tern_status chat_set_log(struct chat *c, struct transcript *t, struct tern_err *err)
{
    enum tern_status st = c->kind->check ? c->kind->check(c, t, err) : TERN_OK;

    if (st)
        return st;
    c->kind->forget(c);
    transcript_free(&c->log);
    c->log = *t;
    memset(t, 0, sizeof *t);
    return TERN_OK;
}
