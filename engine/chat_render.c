/* SPDX-License-Identifier: Apache-2.0 */
/* Conversations to parts, and parts to ids: see chat_template.h. */
#include "engine/chat_template.h"

#include "engine/base/limits.h"
#include "engine/base/mem.h"
#include "engine/chat_format.h"
#include "engine/utf8.h"

#include <stdlib.h>
#include <string.h>

#define MAX_MARKS 8 /* distinct ones of a format; more would only be looked up each time */

static const char *const role_names[] = { "system", "user", "assistant" };

const char *tern_chat_role_name(enum tern_chat_role role)
{
    return role_names[role];
}

bool tern_chat_role_by_name(const char *name, enum tern_chat_role *out)
{
    for (int i = 0; i < 3; i++)
        if (strcmp(role_names[i], name) == 0) {
            *out = (enum tern_chat_role)i;
            return true;
        }
    return false;
}

/* -- parts ----------------------------------------------------------------------------------------------- */

static enum tern_status add(struct tern_chat_prompt *p, enum tern_chat_part_kind kind, const char *text,
                            size_t len, struct tern_err *err)
{
    if (p->n_parts == p->parts_cap) {
        size_t cap = p->parts_cap ? p->parts_cap * 2 : 32;
        struct tern_chat_part *bigger = realloc(p->parts, cap * sizeof *bigger);

        if (!bigger)
            return TERN_FAIL(err, TERN_ERR_MEMORY, "no memory for the %zu parts of a conversation", cap);
        p->parts = bigger;
        p->parts_cap = cap;
    }
    if (!p->text || len > p->text_cap - p->n_text) {
        size_t cap = 2 * (p->n_text + len) + 256;
        char *bigger =
            len <= TERN_MAX_TEXT_BYTES && p->n_text <= TERN_MAX_TEXT_BYTES ? realloc(p->text, cap) : NULL;

        if (!bigger)
            return TERN_FAIL(err, TERN_ERR_MEMORY, "no memory for a conversation of more than %zu bytes",
                             p->n_text);
        p->text = bigger;
        p->text_cap = cap;
    }
    if (len)
        memcpy(p->text + p->n_text, text, len);
    p->parts[p->n_parts++] = (struct tern_chat_part){ kind, p->n_text, len };
    p->n_text += len;
    return TERN_OK;
}

enum tern_status tern_chat_add_content(struct tern_chat_prompt *out, const char *text, size_t len,
                                       struct tern_err *err)
{
    return len ? add(out, TERN_CHAT_CONTENT, text, len, err) : TERN_OK;
}

void tern_chat_prompt_free(struct tern_chat_prompt *p)
{
    free(p->text);
    free(p->parts);
    memset(p, 0, sizeof *p);
}

/* The next piece of a format's string, from *at on: false at its end. */
static bool next_piece(const char **at, bool *mark, struct tern_str *piece)
{
    const char *end;

    if (!**at)
        return false;
    *mark = **at == TERN_CHAT_DELIM;
    *at += *mark;
    end = *at + strcspn(*at, "\1");
    *piece = (struct tern_str){ *at, (size_t)(end - *at) };
    *at = end + *mark;
    return true;
}

/* A string of the format, with its marks. */
static enum tern_status add_words(struct tern_chat_prompt *p, const char *words, struct tern_err *err)
{
    struct tern_str piece;
    enum tern_status st = TERN_OK;
    bool mark;

    while (!st && next_piece(&words, &mark, &piece)) {
        if (mark && tern_str_is(piece, "eos"))
            st = add(p, TERN_CHAT_EOS, NULL, 0, err);
        else if (!mark || !tern_str_is(piece, "bos"))
            st = add(p, mark ? TERN_CHAT_MARK : TERN_CHAT_TEXT, piece.ptr, piece.len, err);
        else if (p->n_parts != 1 || p->parts[0].kind != TERN_CHAT_BOS) /* the text's own stands there */
            st = add(p, TERN_CHAT_BOS, NULL, 0, err);
    }
    return st;
}

/* -- messages -------------------------------------------------------------------------------------------- */

/* What Unicode calls white space and Python's str.strip takes away, which templates are written for. */
static bool is_space(uint32_t c)
{
    return (c >= 0x9 && c <= 0xd) || (c >= 0x1c && c <= 0x20) || c == 0x85 || c == 0xa0 || c == 0x1680 ||
           (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 || c == 0x202f || c == 0x205f ||
           c == 0x3000;
}

static struct tern_str trimmed(struct tern_str s)
{
    const uint8_t *p = (const uint8_t *)s.ptr;
    size_t at = 0, first = s.len, last = s.len, len;

    while (at < s.len) {
        int32_t code = tern_utf8_sequence(p + at, s.len - at, &len);

        if (code <= 0 || !is_space((uint32_t)code - 1)) {
            first = first < s.len ? first : at;
            last = at + len;
        }
        at += len;
    }
    return (struct tern_str){ s.ptr + first, first < s.len ? last - first : 0 };
}

static enum tern_status add_message(const struct tern_chat_format *f, const struct tern_chat_message *m,
                                    struct tern_chat_prompt *p, struct tern_err *err)
{
    struct tern_str words = f->trim && m->content.len ? trimmed(m->content) : m->content;
    enum tern_status st = add_words(p, f->open[m->role], err);

    if (!st && m->role == TERN_CHAT_ASSISTANT && !(st = add(p, TERN_CHAT_CUT, NULL, 0, err)) && f->lead)
        st = add_words(p, f->lead, err);
    if (!st)
        st = tern_chat_add_content(p, words.ptr, words.len, err);
    return st ? st : add_words(p, f->close[m->role], err);
}

/* Messages [first, last) are the system's, `user` (may be NULL) follows: one turn of the user. */
static enum tern_status add_joined(const struct tern_chat_format *f, const struct tern_chat_message *messages,
                                   size_t first, size_t last, const struct tern_chat_message *user,
                                   struct tern_chat_prompt *p, struct tern_err *err)
{
    enum tern_status st = add_words(p, f->open[TERN_CHAT_USER], err);

    for (size_t i = first; i < last && !st; i++)
        st = add_message(f, &messages[i], p, err);
    if (!st && user) {
        struct tern_str words = f->trim && user->content.len ? trimmed(user->content) : user->content;

        st = tern_chat_add_content(p, words.ptr, words.len, err);
    }
    return st ? st : add_words(p, f->close[TERN_CHAT_USER], err);
}

static enum tern_status add_messages(const struct tern_chat_format *f,
                                     const struct tern_chat_message *messages, size_t n, size_t from,
                                     struct tern_chat_prompt *p, struct tern_err *err)
{
    enum tern_status st = TERN_OK;

    for (size_t i = from; i < n && !st; i++) {
        size_t first = i;

        if (!f->system_inside || messages[i].role == TERN_CHAT_ASSISTANT) {
            st = add_message(f, &messages[i], p, err);
            continue;
        }
        while (i < n && messages[i].role == TERN_CHAT_SYSTEM)
            i++;
        if (i < n && messages[i].role == TERN_CHAT_USER)
            st = add_joined(f, messages, first, i, &messages[i], p, err);
        else
            st = add_joined(f, messages, first, i--, NULL, p, err);
    }
    return st;
}

enum tern_status tern_chat_render(const struct tern_chat_format *f, const struct tern_chat_message *messages,
                                  size_t n, size_t from, bool ask, struct tern_chat_prompt *out,
                                  struct tern_err *err)
{
    enum tern_status st = TERN_OK;

    TERN_BUG_IF(from > n);
    if (from == 0 && f->bos)
        st = add(out, TERN_CHAT_BOS, NULL, 0, err);
    if (!st && from && messages[from - 1].role == TERN_CHAT_ASSISTANT)
        st = add_words(out, f->close[TERN_CHAT_ASSISTANT], err);
    if (!st)
        st = add_messages(f, messages, n, from, out, err);
    if (!st && ask)
        st = add_words(out, f->open[TERN_CHAT_ASSISTANT], err);
    return st;
}

/* -- ids ------------------------------------------------------------------------------------------------- */

/* Encodes parts to ids: text is gathered until something that is no text comes. */
struct encoder {
    const struct tern_chat_format *f;
    const struct tern_tokenizer *t;
    struct tern_ids *out;
    char *run; /* [n_run], gathered; room for the whole prompt */
    size_t n_run;
    bool mid; /* the run stands behind tokens that are no special ones */
    struct tern_ids scratch;
    struct mark {
        struct tern_str text;
        int32_t id;
    } marks[MAX_MARKS]; /* looked up so far */
    size_t n_marks;
};

static enum tern_status push(struct tern_ids *out, int32_t id, struct tern_err *err)
{
    if (out->n == out->cap) {
        size_t cap = out->cap ? out->cap * 2 : 64;
        int32_t *bigger = realloc(out->ids, cap * sizeof *bigger);

        if (!bigger)
            return TERN_FAIL(err, TERN_ERR_MEMORY, "no memory for %zu tokens", cap);
        out->ids = bigger;
        out->cap = cap;
    }
    out->ids[out->n++] = id;
    return TERN_OK;
}

/*
 * The ids of text[1..n), whose text[0] is a newline put before it.  A tokenizer that puts a space in front
 * of each text (SPM) must not do so in the middle of one: there the newline takes the space, and the tokens
 * of both are dropped again.  When they do not stand alone, the text is encoded as a beginning.
 */
static enum tern_status encode_mid(struct encoder *e, const char *text, size_t n, struct tern_err *err)
{
    struct tern_ids *s = &e->scratch;
    size_t n_lead;
    enum tern_status st;

    s->n = 0;
    if ((st = tern_tokenizer_encode(e->t, "\n", 1, false, false, s, err)))
        return st;
    n_lead = s->n;
    if (n_lead < 2) /* no space was put in front */
        return tern_tokenizer_encode(e->t, text + 1, n - 1, false, false, e->out, err);
    if ((st = tern_tokenizer_encode(e->t, text, n, false, false, s, err)))
        return st;
    if (s->n < 2 * n_lead || memcmp(s->ids, s->ids + n_lead, n_lead * sizeof s->ids[0]) != 0)
        return tern_tokenizer_encode(e->t, text + 1, n - 1, false, false, e->out, err);
    for (size_t i = 2 * n_lead; i < s->n && !st; i++)
        st = push(e->out, s->ids[i], err);
    return st;
}

/* What has been gathered becomes ids.  run[0] is the newline of encode_mid. */
static enum tern_status flush(struct encoder *e, struct tern_err *err)
{
    const size_t n = e->n_run;
    enum tern_status st;

    e->n_run = 1;
    if (n == 1)
        return TERN_OK;
    st = e->mid ? encode_mid(e, e->run, n, err)
                : tern_tokenizer_encode(e->t, e->run + 1, n - 1, false, false, e->out, err);
    e->mid = true;
    return st;
}

static enum tern_status special(struct encoder *e, int32_t id, struct tern_err *err)
{
    enum tern_status st = flush(e, err);

    e->mid = false;
    return st ? st : push(e->out, id, err);
}

static bool is_special(const struct tern_tokenizer *t, int32_t id)
{
    enum tern_token_type type = tern_tokenizer_type(t, id);

    return id >= 0 && (type == TERN_TOKEN_CONTROL || type == TERN_TOKEN_USER || type == TERN_TOKEN_UNKNOWN);
}

/* The special token of a mark's text, or -1. */
static int32_t mark_id(const struct tern_tokenizer *t, struct tern_str text)
{
    char name[64];
    int32_t id;

    if (text.len >= sizeof name)
        return -1;
    memcpy(name, text.ptr, text.len);
    name[text.len] = '\0';
    id = tern_tokenizer_find(t, name);
    return is_special(t, id) ? id : -1;
}

/* The same, looking once: the vocabulary is long. */
static int32_t known_mark(struct encoder *e, struct tern_str text)
{
    size_t i = 0;

    while (i < e->n_marks && !tern_str_eq(e->marks[i].text, text))
        i++;
    if (i < e->n_marks)
        return e->marks[i].id;
    if (i == MAX_MARKS)
        return mark_id(e->t, text);
    e->marks[e->n_marks++] = (struct mark){ text, mark_id(e->t, text) };
    return e->marks[i].id;
}

/* Where the first of the format's marks that the tokenizer sees in any text (user-defined tokens) begins in
 * `text`, or its length. */
static size_t find_mark(struct encoder *e, struct tern_str text)
{
    size_t best = text.len;

    for (int i = 0; i < 6; i++) {
        const char *at = i < 3 ? e->f->open[i] : e->f->close[i - 3];
        struct tern_str piece;
        bool mark;

        while (next_piece(&at, &mark, &piece)) {
            const char *hit = mark && best ? memmem(text.ptr, best, piece.ptr, piece.len) : NULL;

            if (hit && tern_tokenizer_type(e->t, known_mark(e, piece)) == TERN_TOKEN_USER)
                best = (size_t)(hit - text.ptr);
        }
    }
    return best;
}

static void gather(struct encoder *e, const char *text, size_t n)
{
    if (n)
        memcpy(e->run + e->n_run, text, n);
    e->n_run += n;
}

/* Somebody's words: a mark in them is cut behind its first byte, so that it is text. */
static enum tern_status gather_content(struct encoder *e, struct tern_str text, struct tern_err *err)
{
    size_t at;
    enum tern_status st = TERN_OK;

    while (!st && (at = find_mark(e, text)) < text.len) {
        gather(e, text.ptr, at + 1);
        text = (struct tern_str){ text.ptr + at + 1, text.len - at - 1 };
        st = flush(e, err);
    }
    gather(e, text.ptr, text.len);
    return st;
}

static enum tern_status encode_part(struct encoder *e, enum tern_chat_part_kind kind, struct tern_str text,
                                    struct tern_err *err)
{
    const int32_t bos = tern_tokenizer_bos(e->t), eos = tern_tokenizer_eos(e->t);
    int32_t id;

    switch (kind) {
    case TERN_CHAT_CONTENT: return gather_content(e, text, err);
    case TERN_CHAT_BOS: return bos >= 0 ? special(e, bos, err) : TERN_OK;
    case TERN_CHAT_EOS: return eos >= 0 ? special(e, eos, err) : TERN_OK;
    case TERN_CHAT_CUT: return flush(e, err);
    case TERN_CHAT_MARK:
        if ((id = known_mark(e, text)) >= 0)
            return special(e, id, err);
        break;
    case TERN_CHAT_TEXT: break;
    }
    gather(e, text.ptr, text.len);
    return TERN_OK;
}

enum tern_status tern_chat_encode(const struct tern_chat_format *f, const struct tern_tokenizer *t,
                                  const struct tern_chat_prompt *p, bool first, struct tern_ids *out,
                                  struct tern_err *err)
{
    struct encoder e = { .f = f, .t = t, .out = out, .n_run = 1, .mid = !first };
    const size_t n_before = out->n;
    const bool has_bos = p->n_parts && p->parts[0].kind == TERN_CHAT_BOS;
    enum tern_status st = TERN_OK;

    e.run = malloc(p->n_text + 1);
    if (!e.run)
        return TERN_FAIL(err, TERN_ERR_MEMORY, "no memory for a conversation of %zu bytes", p->n_text);
    e.run[0] = '\n';
    if (first && !has_bos && tern_tokenizer_add_bos(t))
        st = special(&e, tern_tokenizer_bos(t), err);
    for (size_t i = 0; i < p->n_parts && !st; i++) {
        const struct tern_chat_part *part = &p->parts[i];

        st = encode_part(&e, part->kind, (struct tern_str){ p->text + part->at, part->len }, err);
    }
    if (!st)
        st = flush(&e, err);
    if (st)
        out->n = n_before;
    free(e.run);
    free(e.scratch.ids);
    return st;
}

/* -- ends ------------------------------------------------------------------------------------------------ */

/* The mark that closes an answer; EOS is an end anyway. */
static bool end_mark(const struct tern_chat_format *f, struct tern_str *out)
{
    const char *at = f->close[TERN_CHAT_ASSISTANT];
    bool mark = false;

    return next_piece(&at, &mark, out) && mark && !tern_str_is(*out, "eos") && !tern_str_is(*out, "bos");
}

int32_t tern_chat_end_token(const struct tern_chat_format *f, const struct tern_tokenizer *t)
{
    struct tern_str mark;

    return end_mark(f, &mark) ? mark_id(t, mark) : -1;
}

struct tern_str tern_chat_end_text(const struct tern_chat_format *f, const struct tern_tokenizer *t)
{
    struct tern_str mark;

    if (f->stop)
        return (struct tern_str){ f->stop, strlen(f->stop) };
    if (end_mark(f, &mark) && mark_id(t, mark) < 0)
        return mark;
    return (struct tern_str){ "", 0 };
}
