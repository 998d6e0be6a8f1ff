/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tokenizer.model as SentencePiece writes it: a protobuf message, of which four things matter: the pieces
 * with scores and types, the ids of special tokens, whether a space goes in front, and that the model is BPE.
 *
 * The wire format is a few lines to read; numbers of fields are those of sentencepiece_model.proto.
 */
#include "engine/base/log.h"
#include "engine/hf_vocab.h"

#include <string.h>

enum { MODEL_PIECE = 1, MODEL_TRAINER = 2, MODEL_NORMALIZER = 3 };
enum { PIECE_TEXT = 1, PIECE_SCORE = 2, PIECE_TYPE = 3 };
enum { TRAINER_KIND = 3, TRAINER_UNK = 40, TRAINER_BOS = 41, TRAINER_EOS = 42, TRAINER_PAD = 43 };
enum { NORMALIZER_NAME = 1, NORMALIZER_DUMMY_PREFIX = 3, NORMALIZER_TRIM = 4 };
enum { KIND_UNIGRAM = 1, KIND_BPE = 2 };

/* One field; of `value` or `bytes`, what its wire type has. */
struct field {
    uint32_t number, wire;
    uint64_t value;
    struct tern_str bytes;
};

static bool read_varint(struct tern_cursor *c, uint64_t *out)
{
    uint64_t v = 0;
    uint8_t byte;

    for (unsigned shift = 0; shift < 64; shift += 7) {
        if (!tern_cursor_u8(c, &byte))
            return false;
        v |= (uint64_t)(byte & 0x7f) << shift;
        if (!(byte & 0x80)) {
            *out = v;
            return true;
        }
    }
    c->bad = true;
    return false;
}

/* False at the end, and when what is there is no field (then c->bad). */
static bool next_field(struct tern_cursor *c, struct field *f)
{
    uint64_t tag, n;
    const uint8_t *at;
    uint32_t word;

    *f = (struct field){ .number = 0 };
    if (tern_cursor_left(c) == 0 || !read_varint(c, &tag))
        return false;
    f->number = (uint32_t)(tag >> 3);
    f->wire = tag & 7;
    if (tag >> 3 == 0 || tag >> 3 > 0x1fffffff) {
        c->bad = true;
        return false;
    }
    switch (f->wire) {
    case 0: return read_varint(c, &f->value);
    case 1: return tern_cursor_u64(c, &f->value);
    case 2:
        if (!read_varint(c, &n) || !tern_cursor_bytes(c, n, &at))
            return false;
        f->bytes = (struct tern_str){ (const char *)at, (size_t)n };
        return true;
    case 5:
        if (!tern_cursor_u32(c, &word))
            return false;
        f->value = word;
        return true;
    default: c->bad = true; return false;
    }
}

static enum tern_status fail(const struct tern_hf_vocab *v, const char *what, struct tern_err *err)
{
    return TERN_FAIL(err, TERN_ERR_FORMAT, "%s: not a SentencePiece model, or damaged: %s", v->name, what);
}

static enum tern_status read_piece(struct tern_hf_vocab *v, uint32_t id, struct tern_str bytes,
                                   struct tern_err *err)
{
    struct tern_str text = { "", 0 };
    struct tern_cursor c;
    struct field f;
    uint64_t type = TERN_TOKEN_NORMAL;
    uint32_t bits;
    float score = 0;

    tern_cursor_init(&c, bytes.ptr, bytes.len);
    while (next_field(&c, &f)) {
        if (f.number == PIECE_TEXT && f.wire == 2) {
            text = f.bytes;
        } else if (f.number == PIECE_SCORE && f.wire == 5) {
            bits = (uint32_t)f.value;
            memcpy(&score, &bits, sizeof score);
        } else if (f.number == PIECE_TYPE && f.wire == 0) {
            type = f.value;
        }
    }
    if (c.bad)
        return fail(v, "a piece is cut off", err);
    if (type < TERN_TOKEN_NORMAL || type > TERN_TOKEN_BYTE)
        return fail(v, "a piece has an unknown type", err);
    if (score != score)
        return fail(v, "a score is not a number", err);
    return tern_hf_vocab_set(v, id, text.ptr, text.len, (enum tern_token_type)type, score, false, err);
}

/* Ids are int32 on the wire: -1 is none. */
struct trainer {
    uint64_t kind, unk, bos, eos, pad;
};

static enum tern_status read_trainer(const struct tern_hf_vocab *v, struct trainer *t, struct tern_str bytes,
                                     struct tern_err *err)
{
    struct tern_cursor c;
    struct field f;

    tern_cursor_init(&c, bytes.ptr, bytes.len);
    while (next_field(&c, &f)) {
        if (f.wire != 0)
            continue;
        switch (f.number) {
        case TRAINER_KIND: t->kind = f.value; break;
        case TRAINER_UNK: t->unk = f.value; break;
        case TRAINER_BOS: t->bos = f.value; break;
        case TRAINER_EOS: t->eos = f.value; break;
        case TRAINER_PAD: t->pad = f.value; break;
        default: break;
        }
    }
    return c.bad ? fail(v, "the trainer's description is cut off", err) : TERN_OK;
}

static enum tern_status read_normalizer(struct tern_hf_vocab *v, struct tern_str bytes, struct tern_err *err)
{
    struct tern_cursor c;
    struct field f;
    bool changes = false;

    tern_cursor_init(&c, bytes.ptr, bytes.len);
    while (next_field(&c, &f)) {
        if (f.number == NORMALIZER_DUMMY_PREFIX && f.wire == 0)
            v->add_space = f.value != 0;
        changes |= f.number == NORMALIZER_NAME && f.wire == 2 && !tern_str_is(f.bytes, "identity");
        changes |= f.number == NORMALIZER_TRIM && f.wire == 0 && f.value;
    }
    if (changes)
        tern_log(TERN_LOG_WARN, "tokenizer",
                 "%s wants texts normalised (characters, or runs of spaces), which is not done", v->name);
    return c.bad ? fail(v, "the normaliser's description is cut off", err) : TERN_OK;
}

enum tern_status tern_hf_vocab_model(struct tern_hf_vocab *v, const void *bytes, size_t n,
                                     struct tern_err *err)
{
    struct trainer t = { KIND_UNIGRAM, 0, 1, 2, UINT64_MAX }; /* what absent fields stand for */
    struct tern_cursor c;
    struct field f;
    uint32_t n_pieces = 0;
    enum tern_status st = TERN_OK;

    if (n == 0 || ((const uint8_t *)bytes)[0] != (MODEL_PIECE << 3 | 2))
        return tern_hf_vocab_tiktoken(v, bytes, n, err);
    v->spm = true;
    v->add_space = 1;
    tern_cursor_init(&c, bytes, n);
    while (st == TERN_OK && next_field(&c, &f)) {
        if (f.wire != 2)
            continue;
        if (f.number == MODEL_PIECE)
            st = read_piece(v, n_pieces++, f.bytes, err);
        else if (f.number == MODEL_TRAINER)
            st = read_trainer(v, &t, f.bytes, err);
        else if (f.number == MODEL_NORMALIZER)
            st = read_normalizer(v, f.bytes, err);
    }
    if (st)
        return st;
    if (c.bad)
        return fail(v, "it is cut off", err);
    if (t.kind != KIND_BPE)
        return TERN_FAIL(err, TERN_ERR_UNSUPPORTED,
                         "%s: a SentencePiece model of kind %llu; BPE (%d) is known, unigram (%d) is not",
                         v->name, (unsigned long long)t.kind, KIND_BPE, KIND_UNIGRAM);
    v->unknown = t.unk < v->n ? (int64_t)t.unk : -1;
    v->bos = t.bos < v->n ? (int64_t)t.bos : -1;
    v->eos = t.eos < v->n ? (int64_t)t.eos : -1;
    v->pad = t.pad < v->n ? (int64_t)t.pad : -1;
    return TERN_OK;
}
