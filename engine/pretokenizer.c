/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The pre-tokenizers' expressions, compiled by PCRE2 with UTF and Unicode properties, and the splitting
 * itself.
 *
 * Every expression was measured on runs of 10 MB of spaces, newlines, letters, digits and emoji: none is
 * worse than linear, because a run of one class is consumed by a constant number of matches.
 */
#include "engine/pretokenizer.h"

#include "engine/utf8.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

/* White space as Unicode has it.  PCRE2's \s also takes U+180E, which is none since
 * Unicode 6.3. */
#define WS                                                                                                   \
    "\\x09-\\x0d\\x20\\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}\\x{205f}\\x{"     \
    "3000}"
#define S     "[" WS "]"
#define NOT_S "[^" WS "]"

#define CONTRACTION_ANY_CASE "(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])"
#define AFTER_NUMBERS        "| ?[^" WS "\\p{L}\\p{N}]+[\\r\\n]*|" S "*[\\r\\n]+|" S "+(?!" NOT_S ")|" S "+"

/* A word ends where a capital follows a small letter; a letter without case, or a mark, is either. */
#define CAPITALS "[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]"
#define SMALLS   "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]"

enum { LL3 = 1, QW2, G2, PUNCT, PUNCT2, NUM, DIG3, DIG1, CASED };

static const char *const exprs[] = {
    [LL3] = CONTRACTION_ANY_CASE "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}" AFTER_NUMBERS,
    [QW2] = CONTRACTION_ANY_CASE "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}" AFTER_NUMBERS,
    [G2] = "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^" WS "\\p{L}\\p{N}]+|" S "+(?!" NOT_S ")",
    [PUNCT] = "[\\p{P}$+<=>^~|]+",
    [PUNCT2] = "[\\p{P}$+<=>^~|`]+",
    [NUM] = "\\p{N}+",
    [DIG3] = "[0-9][0-9][0-9]",
    [DIG1] = "[0-9]",
    [CASED] = "[^\\r\\n\\p{L}\\p{N}]?" CAPITALS "*" SMALLS "+|[^\\r\\n\\p{L}\\p{N}]?" CAPITALS "+" SMALLS
              "*|\\p{N}| ?[^" WS "\\p{L}\\p{N}]+[\\r\\n/]*|" S "*[\\r\\n]+|" S "+(?!" NOT_S ")|" S "+",
};

/*
 * Sorted by name.  falcon3 and falcon_e stand for what their publisher's tokenizer.json say, which the models
 * were trained with.  bitnet.cpp reads falcon3 so too but takes falcon_e for it; llama.cpp cuts falcon3 as
 * llama-bpe and puts BOS in front, which is kept under the name falcon3-upstream.
 */
static const struct tern_pretok_kind kinds[] = {
    { "default", false, false, { PUNCT, G2, NUM, DIG3 } },
    { "falcon", false, false, { PUNCT2, G2, DIG3 } },
    { "falcon3", false, false, { PUNCT2, G2, DIG1 } },
    { "falcon3-upstream", true, true, { LL3 } },
    { "falcon_e", false, false, { PUNCT2, CASED } },
    { "gpt-2", false, false, { G2 } },
    { "llama-bpe", true, true, { LL3 } },
    { "llama-v3", true, true, { LL3 } },
    { "llama3", true, true, { LL3 } },
    { "qwen2", false, false, { QW2 } },
    { "stablelm2", false, false, { QW2 } },
};
#define N_KINDS (sizeof kinds / sizeof kinds[0])

struct tern_pretok {
    unsigned n;
    pcre2_code *codes[TERN_PRETOK_MAX_EXPRS];
};

const struct tern_pretok_kind *tern_pretok_find(struct tern_str name)
{
    for (size_t i = 0; i < N_KINDS; i++)
        if (tern_str_is(name, kinds[i].name))
            return &kinds[i];
    return NULL;
}

void tern_pretok_list(char *out, size_t cap)
{
    size_t at = 0;

    for (size_t i = 0; i < N_KINDS && at < cap; i++)
        at += (size_t)snprintf(out + at, cap - at, "%s%s", i ? ", " : "", kinds[i].name);
}

void tern_pretok_help(FILE *f)
{
    const int indent = 28, width = 96;
    int column = indent;

    fputs("      --pre NAME            cut words as this pre-tokenizer does, whatever the file says:\n", f);
    for (size_t i = 0; i < N_KINDS; i++) {
        int n = (int)strlen(kinds[i].name) + 2;

        if (column + n > width)
            column = indent;
        fprintf(f, "%*s%s%s", column == indent ? indent : 0, "", kinds[i].name, i + 1 < N_KINDS ? "," : "\n");
        column += n;
        if (i + 1 < N_KINDS)
            fputs(column + (int)strlen(kinds[i + 1].name) + 2 > width ? "\n" : " ", f);
    }
}

enum tern_status tern_pretok_new(const struct tern_pretok_kind *kind, bool jit, struct tern_pretok **out,
                                 struct tern_err *err)
{
    struct tern_pretok *p = calloc(1, sizeof *p);

    if (!p)
        return TERN_FAIL(err, TERN_ERR_MEMORY, "no memory for the pre-tokenizer '%s'", kind->name);
    for (unsigned i = 0; i < TERN_PRETOK_MAX_EXPRS && kind->exprs[i]; i++) {
        const char *expr = exprs[kind->exprs[i]];
        int code;
        PCRE2_SIZE at;

        p->codes[i] =
            pcre2_compile((PCRE2_SPTR)expr, PCRE2_ZERO_TERMINATED, PCRE2_UTF | PCRE2_UCP, &code, &at, NULL);
        if (!p->codes[i]) {
            PCRE2_UCHAR why[120];

            pcre2_get_error_message(code, why, sizeof why);
            tern_pretok_free(&p);
            return TERN_FAIL(err, code == PCRE2_ERROR_HEAP_FAILED ? TERN_ERR_MEMORY : TERN_ERR_UNSUPPORTED,
                             "pre-tokenizer '%s': PCRE2 refuses expression %u at %zu: %s", kind->name, i + 1,
                             at, (const char *)why);
        }
        p->n = i + 1;
        if (jit) /* fails where pages cannot be made executable: the interpreter does the same, slower */
            (void)pcre2_jit_compile(p->codes[i], PCRE2_JIT_COMPLETE);
    }
    *out = p;
    return TERN_OK;
}

void tern_pretok_free(struct tern_pretok **p)
{
    if (!*p)
        return;
    for (unsigned i = 0; i < TERN_PRETOK_MAX_EXPRS; i++)
        pcre2_code_free((*p)->codes[i]);
    free(*p);
    *p = NULL;
}

struct split {
    const struct tern_pretok *p;
    pcre2_match_data *match; /* one serves all expressions: its offsets are read right after the match */
    pcre2_match_context *context;
    tern_pretok_emit *emit;
    void *arg;
    struct tern_err *err;
};

static enum tern_status split_failed(const struct split *s, int code, size_t at)
{
    PCRE2_UCHAR why[120];

    pcre2_get_error_message(code, why, sizeof why);
    return TERN_FAIL(
        s->err,
        code == PCRE2_ERROR_NOMEMORY || code == PCRE2_ERROR_HEAPLIMIT ? TERN_ERR_MEMORY : TERN_ERR_LIMIT,
        "the text cannot be cut into pieces: PCRE2 gave up %zu bytes into one of them: %s; shorten the text",
        at, (const char *)why);
}

/* Applies expressions i.. to one piece; depth is at most TERN_PRETOK_MAX_EXPRS. */
static enum tern_status split_by(const struct split *s, unsigned i, const char *text, size_t len)
{
    size_t at = 0;

    if (i == s->p->n || i == TERN_PRETOK_MAX_EXPRS)
        return s->emit(s->arg, text, len, s->err);
    while (at < len) {
        int rc =
            pcre2_match(s->p->codes[i], (PCRE2_SPTR)text, len, at, PCRE2_NO_UTF_CHECK, s->match, s->context);
        const PCRE2_SIZE *ov = pcre2_get_ovector_pointer(s->match);
        size_t begin = len, end = len;
        enum tern_status st;

        if (rc >= 0) {
            begin = ov[0];
            end = ov[1];
            TERN_BUG_IF(begin < at || end <= begin || end > len);
        } else if (rc != PCRE2_ERROR_NOMATCH) {
            return split_failed(s, rc, at);
        }
        if (begin > at && (st = split_by(s, i + 1, text + at, begin - at)) != TERN_OK)
            return st;
        if (end > begin && (st = split_by(s, i + 1, text + begin, end - begin)) != TERN_OK)
            return st;
        at = end;
    }
    return TERN_OK;
}

enum tern_status tern_pretok_split(const struct tern_pretok *p, const char *text, size_t len,
                                   tern_pretok_emit *emit, void *arg, struct tern_err *err)
{
    /* The interpreter counts one for each step back over a run; the longest run is the text.  PCRE2's own
     * default of 10 million would refuse 10 MB of spaces. */
    uint64_t limit = 10000000 + 8 * (uint64_t)len;
    struct split s = { .p = p, .emit = emit, .arg = arg, .err = err };
    enum tern_status st = TERN_OK;

    if (len == 0)
        return TERN_OK;
    s.match = pcre2_match_data_create(1, NULL);
    s.context = pcre2_match_context_create(NULL);
    if (!s.match || !s.context)
        st = TERN_FAIL(err, TERN_ERR_MEMORY, "no memory to cut text into pieces");
    else
        pcre2_set_match_limit(s.context, limit > UINT32_MAX ? UINT32_MAX : (uint32_t)limit);
    for (size_t at = 0; st == TERN_OK && at < len;) {
        size_t run = tern_utf8_valid_prefix((const uint8_t *)text + at, len - at);

        if (run > 0)
            st = split_by(&s, 0, text + at, run);
        else
            st = emit(arg, text + at, run = 1, err);
        at += run;
    }
    pcre2_match_data_free(s.match);
    pcre2_match_context_free(s.context);
    return st;
}
