/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A server's stream of events, from anywhere, cut as the first byte says.
 *
 * What must hold: however it is cut, the answer and what becomes of it are the same; text is what was passed
 * on, and is valid UTF-8.
 */
#include "fuzz/fuzz.h"

#include "coordinator/chat_answer_stream.h"
#include "engine/utf8.h"

#include <stdlib.h>
#include <string.h>

struct got {
    struct chat_answer_stream a;
    size_t n_passed;
    enum tern_status st;
};

static bool on_text(void *user, const char *text, size_t len)
{
    struct got *g = user;

    FUZZ_CHECK(len > 0 && tern_utf8_valid_prefix((const uint8_t *)text, len) == len);
    FUZZ_CHECK(memcmp(g->a.text + g->n_passed, text, len) == 0);
    g->n_passed += len;
    return true;
}

/* In pieces of 1 to `most` bytes; 0: at once. */
static void feed(struct got *g, const uint8_t *data, size_t n, size_t most)
{
    memset(g, 0, sizeof *g);
    g->a.on_text = on_text;
    g->a.user = g;
    for (size_t at = 0; at < n && !g->st;) {
        const size_t some = most ? 1 + at * 7 % most : n, left = n - at;

        g->st = chat_answer_stream_feed(&g->a, (const char *)data + at, some < left ? some : left, NULL);
        at += some < left ? some : left;
    }
    FUZZ_CHECK(g->n_passed == g->a.n_text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct got whole, cut;

    if (size < 1)
        return 0;
    feed(&whole, data + 1, size - 1, 0);
    feed(&cut, data + 1, size - 1, 1 + data[0]);
    FUZZ_CHECK(whole.st == cut.st && whole.a.ended == cut.a.ended && whole.a.done == cut.a.done);
    FUZZ_CHECK(whole.a.n_text == cut.a.n_text && whole.a.usage == cut.a.usage);
    FUZZ_CHECK(!whole.a.n_text || memcmp(whole.a.text, cut.a.text, whole.a.n_text) == 0);
    chat_answer_stream_free(&whole.a);
    chat_answer_stream_free(&cut.a);
    whole.st = chat_answer_stream_whole(&whole.a, (const char *)data + 1, size - 1, NULL);
    chat_answer_stream_free(&whole.a);
    return 0;
}
