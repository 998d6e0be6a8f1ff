/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tokenizer files of publishers' folders.  The first two bytes are the room for tokens, the third chooses
 * what the rest is:
 *
 *   0  tokenizer.json    1  tokenizer.model (SentencePiece or tiktoken)
 *   2  tokenizer_config.json behind a small tokenizer.json    3  generation_config.json behind it
 *   4  added_tokens.json behind it
 *
 * What must hold: a file is refused with a sentence, or its keys are a GGUF that the tokenizer loads or
 * refuses with one; ids lie inside the room.
 */
#include "fuzz/fuzz.h"

#include "engine/base/log.h"
#include "engine/hf_vocab.h"

#include <string.h>

#define MAX_ROOM 4096

static const char small[] = "{\"added_tokens\": [{\"id\": 4, \"content\": \"<|end|>\", \"special\": true}], "
                            "\"pre_tokenizer\": {\"type\": "
                            "\"ByteLevel\"}, \"model\": {\"vocab\": {\"a\": 0, \"b\": 1, \"ab\": 2, \"c\": "
                            "3}, \"merges\": [\"a b\"]}}";

static void check_tokenizer(const struct tern_gguf *g, uint32_t room)
{
    static const char text[] = "a ab<|end|> c\xff\xe2\x96\x81 abcabc 123";
    struct tern_tokenizer *t = NULL;
    struct tern_ids ids = { 0 };
    struct tern_err err = { .text = "" };

    if (tern_tokenizer_new(g, NULL, &t, &err) != TERN_OK) {
        FUZZ_CHECK(err.text[0] && !t);
        return;
    }
    FUZZ_CHECK(tern_tokenizer_n_vocab(t) == room);
    if (tern_tokenizer_encode(t, text, sizeof text - 1, true, true, &ids, &err) == TERN_OK)
        for (size_t i = 0; i < ids.n; i++)
            FUZZ_CHECK(ids.ids[i] >= 0 && (uint32_t)ids.ids[i] < room);
    else
        FUZZ_CHECK(err.text[0] && ids.n == 0);
    free(ids.ids);
    tern_tokenizer_free(&t);
}

static void check_keys(const struct tern_hf_vocab *v)
{
    struct tern_gguf_writer *w;
    struct tern_gguf *g;
    struct tern_err err = { .text = "" };
    char *bytes = NULL;
    size_t n;
    FILE *f = open_memstream(&bytes, &n);

    FUZZ_CHECK(f && tern_gguf_writer_new(f, "fuzz", 32, &w, &err) == TERN_OK);
    FUZZ_CHECK(tern_hf_vocab_put(v, w, &err) == TERN_OK);
    tern_gguf_begin(w);
    FUZZ_CHECK(tern_gguf_finish(&w, &err) == TERN_OK);
    fclose(f);
    FUZZ_CHECK(tern_gguf_parse("fuzz", bytes, n, &g, &err) == TERN_OK);
    check_tokenizer(g, v->n_room);
    tern_gguf_close(&g);
    free(bytes);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct tern_hf_vocab v;
    struct tern_err err = { .text = "" };
    enum tern_status st;
    uint32_t room;

    tern_log_set_level(TERN_LOG_ERROR);
    if (size < 3)
        return 0;
    room = (data[0] | (uint32_t)data[1] << 8) % MAX_ROOM;
    st = tern_hf_vocab_init(&v, room, &err);
    v.name = "fuzz";
    if (st == TERN_OK && data[2] % 5 >= 2)
        st = tern_hf_vocab_json(&v, small, sizeof small - 1, &err);
    if (st == TERN_OK)
        switch (data[2] % 5) {
        case 0: st = tern_hf_vocab_json(&v, data + 3, size - 3, &err); break;
        case 1: st = tern_hf_vocab_model(&v, data + 3, size - 3, &err); break;
        case 2: st = tern_hf_vocab_config(&v, data + 3, size - 3, &err); break;
        case 3: st = tern_hf_vocab_ids(&v, data + 3, size - 3, &err); break;
        default: st = tern_hf_vocab_added(&v, data + 3, size - 3, &err); break;
        }
    if (st == TERN_OK)
        check_keys(&v);
    else
        FUZZ_CHECK(err.text[0]);
    tern_hf_vocab_free(&v);
    return 0;
}
