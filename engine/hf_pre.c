/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which pre-tokenizer a tokenizer.json means.  GGUF knows them by name, tokenizer.json as steps; known steps
 * become a letter each, and known words of those letters a name.
 *
 * Unknown steps are named "unknown": the model opens, and whoever wants to tokenize has to choose with --pre.
 * Taking the likeliest one instead would only make the model a little worse, which nobody would notice.
 */
#include "engine/base/log.h"
#include "engine/hf_vocab.h"

#include <string.h>

#define MAX_STEPS 8

/* What follows the contractions, with so many digits at once. */
#define TAIL(digits)                                                                                         \
    "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}" digits                                                           \
    "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define ANY_CASE "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
#define BY_HAND  "(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])"
#define GPT2     "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)"

/* The words of Falcon-E: cut where a capital follows a small letter. */
#define HEAD     "[^\\r\\n\\p{L}\\p{N}]?"
#define CAPITALS "[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]"
#define SMALLS   "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]"
#define CASED                                                                                                \
    HEAD CAPITALS "*" SMALLS "+|" HEAD CAPITALS "+" SMALLS "*"                                               \
                  "|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"

static char split_letter(const json_t *step)
{
    static const struct {
        const char *expr;
        char letter;
    } known[] = {
        { ANY_CASE TAIL("{1,3}"), 'L' },
        { BY_HAND TAIL("{1,3}"), 'L' },
        { ANY_CASE TAIL(""), 'Q' },
        { BY_HAND TAIL(""), 'Q' },
        { CASED, 'C' },
        { GPT2, 'g' },
        { GPT2 "|\\s+", 'g' },
        { "[0-9][0-9][0-9]", '3' },
        { "[0-9]", 'D' },
        { "\\d", 'D' },
        { "\\p{N}", 'D' },
    };
    const json_t *pattern = json_object_get(step, "pattern");
    const char *expr = json_string_value(json_object_get(pattern, "Regex"));
    const char *behavior = json_string_value(json_object_get(step, "behavior"));
    bool invert = json_is_true(json_object_get(step, "invert"));

    /* What is not matched, removed: the matches are left, as these expressions match everything. */
    if (!expr || !behavior || strcmp(behavior, invert ? "Removed" : "Isolated") != 0)
        return '?';
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        if (strcmp(expr, known[i].expr) == 0)
            return known[i].letter;
    return '?';
}

static char step_letter(const json_t *step)
{
    const char *type = json_string_value(json_object_get(step, "type"));
    const char *behavior = json_string_value(json_object_get(step, "behavior"));

    if (!type)
        return '?';
    if (strcmp(type, "Split") == 0)
        return split_letter(step);
    if (strcmp(type, "ByteLevel") == 0) {
        if (json_is_true(json_object_get(step, "add_prefix_space")))
            return '?';
        return json_is_false(json_object_get(step, "use_regex")) ? 'b' : 'G';
    }
    if (strcmp(type, "Digits") == 0)
        return json_is_true(json_object_get(step, "individual_digits")) ? 'D' : 'd';
    if (strcmp(type, "Punctuation") == 0)
        return behavior && strcmp(behavior, "Contiguous") == 0 ? 'P' : '?';
    return '?';
}

const char *tern_hf_pre_name(const char *file, const json_t *pre)
{
    static const struct {
        const char *word, *name;
    } known[] = {
        { "Lb", "llama-bpe" }, { "Qb", "qwen2" },      { "G", "gpt-2" },       { "gb", "gpt-2" },
        { "PG3", "falcon" },   { "PGd3", "falcon" },   { "PGD", "falcon3" },   { "Pgb3", "falcon" },
        { "PgDb", "falcon3" }, { "PCbD", "falcon_e" }, { "PCDb", "falcon_e" },
    };
    const json_t *steps = json_object_get(pre, "pretokenizers");
    char word[MAX_STEPS + 2] = "";
    size_t n = json_is_array(steps) ? json_array_size(steps) : 1, len = 0;

    for (size_t i = 0; i < n && i <= MAX_STEPS; i++) {
        char letter = step_letter(json_is_array(steps) ? json_array_get(steps, i) : pre);

        if (!strchr(word, 'D') || !strchr("dD3", letter)) /* single digits are not cut any more */
            word[len++] = letter;
    }
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        if (strcmp(word, known[i].word) == 0)
            return known[i].name;
    tern_log(TERN_LOG_WARN, "tokenizer",
             "%s cuts words in a way that has no name here; choose one with --pre", file);
    return "unknown";
}
