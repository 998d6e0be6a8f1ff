/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Conversations and chat templates from anywhere.  The first byte chooses:
 *
 * - even: the rest is a chat template, whose format is told by its looks;
 * - odd: a byte, which format; a byte, whether the special tokens are of the type that any text is searched
 *   for; and the rest is a conversation's JSON.
 *
 * What must hold: the tokens' pieces are the text that was rendered; nothing anybody says makes a special
 * token; and where an answer begins, the ids up to there are those of the conversation up to there.
 */
#include "coordinator/transcript.h"
#include "fuzz/fuzz_vocab.h"

#include <string.h>

static const char *const marks[] = {
    "<B>",           "<E>",        "<|eot_id|>",        "<|start_header_id|>",
    "<|im_start|>",  "<|im_end|>", "<|end_header_id|>", "<start_of_turn>",
    "<end_of_turn>", "<|user|>",   "<|assistant|>",     "<|system|>",
    "<|end|>"
};
#define N_MARKS (sizeof marks / sizeof marks[0])

/* All marks but the first two are of this type; kept for the process. */
static const struct tern_tokenizer *tokenizer(int32_t type)
{
    static const struct tern_tokenizer *made[8];

    if (!made[type])
        made[type] = fuzz_vocab_new("llama-bpe", marks, N_MARKS, type);
    return made[type];
}

static void encode(const struct tern_chat_format *f, const struct tern_tokenizer *t,
                   const struct tern_chat_message *m, size_t n, bool ask, struct tern_chat_prompt *p,
                   struct tern_ids *ids)
{
    FUZZ_CHECK(tern_chat_render(f, m, n, 0, ask, p, NULL) == TERN_OK);
    FUZZ_CHECK(tern_chat_encode(f, t, p, true, ids, NULL) == TERN_OK);
}

/* A mark of the format: text must not make one. */
static bool is_own(const struct tern_chat_format *f, struct tern_str text)
{
    static const struct tern_chat_message all[] = { { TERN_CHAT_SYSTEM, { "", 0 } },
                                                    { TERN_CHAT_USER, { "", 0 } },
                                                    { TERN_CHAT_ASSISTANT, { "", 0 } } };
    struct tern_chat_prompt p = { 0 };
    bool found = false;

    FUZZ_CHECK(tern_chat_render(f, all, 3, 0, true, &p, NULL) == TERN_OK);
    for (size_t i = 0; i < p.n_parts; i++)
        found |= p.parts[i].kind == TERN_CHAT_MARK &&
                 tern_str_eq((struct tern_str){ p.text + p.parts[i].at, p.parts[i].len }, text);
    tern_chat_prompt_free(&p);
    return found;
}

/* Text is its bytes, or user-defined tokens that mean nothing in this format. */
static size_t check_text(const struct tern_chat_format *f, const struct tern_tokenizer *t,
                         struct tern_str text, const struct tern_ids *ids, size_t at)
{
    for (size_t b = 0; b < text.len; at++) {
        struct tern_str piece;

        FUZZ_CHECK(at < ids->n);
        piece = tern_tokenizer_piece(t, ids->ids[at], true);
        FUZZ_CHECK(piece.len > 0 && piece.len <= text.len - b &&
                   memcmp(piece.ptr, text.ptr + b, piece.len) == 0);
        FUZZ_CHECK(ids->ids[at] < 256 ||
                   (tern_tokenizer_type(t, ids->ids[at]) == TERN_TOKEN_USER && !is_own(f, piece)));
        b += piece.len;
    }
    return at;
}

/* Walks the parts along the ids: a mark is one token. */
static void check_parts(const struct tern_chat_format *f, const struct tern_tokenizer *t,
                        const struct tern_chat_prompt *p, const struct tern_ids *ids)
{
    size_t at = p->n_parts == 0 || p->parts[0].kind != TERN_CHAT_BOS; /* the tokenizer's own BOS */

    for (size_t i = 0; i < p->n_parts; i++) {
        const struct tern_chat_part *part = &p->parts[i];

        if (part->kind == TERN_CHAT_MARK || part->kind == TERN_CHAT_BOS || part->kind == TERN_CHAT_EOS) {
            FUZZ_CHECK(at < ids->n && ids->ids[at] >= 256);
            at++;
        } else {
            at = check_text(f, t, (struct tern_str){ p->text + part->at, part->len }, ids, at);
        }
    }
    FUZZ_CHECK(at == ids->n && ids->ids[0] == FUZZ_BOS);
}

static void check_talk(const struct tern_chat_format *f, const struct tern_tokenizer *t,
                       const struct transcript *talk)
{
    struct tern_chat_prompt whole = { 0 };
    struct tern_ids ids = { 0 };
    size_t n_checked = 0;

    encode(f, t, talk->messages, talk->n, true, &whole, &ids);
    check_parts(f, t, &whole, &ids);
    for (size_t i = 0; i < talk->n && n_checked < 8; i++) {
        struct tern_chat_prompt begin = { 0 };
        struct tern_ids first = { 0 };

        if (talk->messages[i].role != TERN_CHAT_ASSISTANT)
            continue;
        encode(f, t, talk->messages, i, true, &begin, &first);
        FUZZ_CHECK(first.n <= ids.n && memcmp(first.ids, ids.ids, first.n * sizeof *first.ids) == 0);
        tern_chat_prompt_free(&begin);
        free(first.ids);
        n_checked++;
    }
    tern_chat_prompt_free(&whole);
    free(ids.ids);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const struct tern_chat_format *f;
    struct transcript talk = { 0 };
    struct tern_err err;
    size_t n_formats = 0;

    if (size < 3)
        return 0;
    if (data[0] % 2 == 0) {
        f = tern_chat_format_detect((struct tern_str){ (const char *)data + 1, size - 1 });
        FUZZ_CHECK(!f || tern_chat_format_by_name(tern_chat_format_name(f)) == f);
        return 0;
    }
    while (tern_chat_format_at(n_formats))
        n_formats++;
    f = tern_chat_format_at(data[1] % n_formats);
    if (transcript_parse(&talk, "input", (const char *)data + 3, size - 3, &err) == TERN_OK)
        check_talk(f, tokenizer(data[2] % 2 ? TERN_TOKEN_USER : TERN_TOKEN_CONTROL), &talk);
    transcript_free(&talk);
    return 0;
}
