/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a server and a command line say to tern pull: a first line that names what is wanted, then a listing.
 * Whatever is chosen is safe below a folder, and has an address.
 */
#include "fuzz/fuzz.h"

#include "coordinator/pull.h"

#include <stdlib.h>
#include <string.h>

static void check_choice(struct pull_list *l, const struct pull_spec *spec)
{
    char address[3 * PULL_MAX_PATH + 1];
    struct tern_err err;
    size_t model, n = 0;

    for (size_t i = 0; i < l->n; i++) {
        FUZZ_CHECK(pull_path_ok(l->entries[i].path));
        FUZZ_CHECK(pull_escape(l->entries[i].path, true, address, sizeof address));
        FUZZ_CHECK(strpbrk(address, " \"<>\\^`{|}?#") == NULL);
        FUZZ_CHECK(!l->entries[i].chosen && strlen(l->entries[i].id) <= 64);
    }
    if (pull_list_choose(l, spec, &model, &err))
        return;
    for (size_t i = 0; i < l->n; i++)
        n += l->entries[i].chosen;
    FUZZ_CHECK(n > 0);
    FUZZ_CHECK(model == SIZE_MAX || (model < l->n && l->entries[model].chosen));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const uint8_t *lf = memchr(data, '\n', size);
    struct pull_spec spec;
    struct pull_list l;
    struct tern_err err;
    char text[2048], folder[PATH_MAX];
    size_t n = lf ? (size_t)(lf - data) : 0;

    if (!lf || n >= sizeof text)
        return 0;
    memcpy(text, data, n);
    text[n] = '\0';
    if (pull_spec_parse(text, NULL, &spec, &err))
        return 0;
    setenv("TERN_MODELS", "/models", 1);
    FUZZ_CHECK(pull_folder(&spec, folder, sizeof folder, &err) == TERN_OK);
    FUZZ_CHECK(strncmp(folder, "/models/", 8) == 0 && strstr(folder, "/.") == NULL);
    if (pull_list_parse((const char *)lf + 1, size - n - 1, &l, &err))
        return 0;
    check_choice(&l, &spec);
    pull_list_fini(&l);
    return 0;
}
