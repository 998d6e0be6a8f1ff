/* SPDX-License-Identifier: Apache-2.0 */
/* What `tern inspect --verify` has found, as a table and as JSON. */
#include "coordinator/inspect.h"
#include "coordinator/json_out.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static const char *evidence(const struct tern_i2s_check *c, char buf[160])
{
    if (!c->pairs)
        snprintf(buf, 160, "no I2_S matrices");
    else if (!c->sure)
        snprintf(buf, 160,
                 "cannot be told: the weights agree with none of A, B and C more than by chance, as random "
                 "ones do");
    else
        snprintf(buf, 160, "%c, by %zu pairs of statistics (evidence A %.0f, B %.0f, C %.0f)",
                 'A' + (int)c->likely, c->pairs, c->evidence[0], c->evidence[1], c->evidence[2]);
    return buf;
}

static double share(const struct tern_verify_matrix *m, int i)
{
    uint64_t all = m->n[0] + m->n[1] + m->n[2];

    return all ? (double)m->n[i] / (double)all : 0;
}

void inspect_print_verify(const struct tern_verify *v)
{
    char buf[160];
    int width = 8;

    for (size_t i = 0; i < v->n_matrices; i++)
        if (v->matrices[i].tensor->name.len < 60 && (int)v->matrices[i].tensor->name.len > width)
            width = (int)v->matrices[i].tensor->name.len;
    printf("\nVerification\n");
    if (v->n_matrices)
        printf("  %-*s  %-10s %8s %8s %8s  %s\n", width, "matrix", "type", "-1", "0", "+1", "scale");
    for (size_t i = 0; i < v->n_matrices; i++) {
        const struct tern_verify_matrix *m = &v->matrices[i];
        struct tern_err name; /* with what could move a cursor replaced */

        (void)TERN_FAIL(&name, TERN_ERR_FORMAT, "%.*s", TERN_STR_ARGS(m->tensor->name));
        printf("  %-*s  %-10s", width, name.text, tern_gguf_type_name(m->tensor->type));
        if (m->n[0] + m->n[1] + m->n[2] == 0)
            printf(" not readable\n");
        else
            printf(" %6.2f %% %6.2f %% %6.2f %%  %.9g\n", 100 * share(m, 0), 100 * share(m, 1),
                   100 * share(m, 2), (double)m->scale);
    }
    printf("  %-22s %zu, %zu of them in other tensors than matrices\n", "values looked at",
           v->n_values + inspect_verify_weights(v), v->n_values);
    printf("  %-22s %s\n", "hashes of tensors",
           !v->has_hashes ? "none in the file" : "compared with those in the file");
    printf("  %-22s %s\n", "layout of I2_S", evidence(&v->i2s, buf));
    for (size_t i = 0; i < v->n_findings; i++)
        printf("  %s: %s\n", v->findings[i].broken ? "BROKEN" : "doubtful", v->findings[i].text);
    if (v->n_held_back)
        printf("  and %zu more\n", v->n_held_back);
    if (!v->n_findings)
        printf("  nothing wrong\n");
}

size_t inspect_verify_weights(const struct tern_verify *v)
{
    uint64_t n = 0;

    for (size_t i = 0; i < v->n_matrices; i++)
        n += v->matrices[i].n[0] + v->matrices[i].n[1] + v->matrices[i].n[2];
    return (size_t)n;
}

static json_t *layout(const struct tern_i2s_check *c)
{
    static const char *const letters[] = { "A", "B", "C" };
    json_t *by = json_object();

    for (int i = 0; i < 3; i++)
        json_object_set_new(by, letters[i],
                            c->evidence[i] < 0 ? json_null() : json_out_number(c->evidence[i]));
    return json_pack("{s:i, s:o, s:o}", "pairs", (int)c->pairs, "evidence", by, "likely",
                     c->sure ? json_string(letters[c->likely]) : json_null());
}

json_t *inspect_json_verify(const struct tern_verify *v)
{
    json_t *matrices = json_array(), *findings = json_array();

    for (size_t i = 0; i < v->n_matrices; i++) {
        const struct tern_verify_matrix *m = &v->matrices[i];

        json_array_append_new(
            matrices, json_pack("{s:o, s:s, s:o, s:o, s:o, s:o}", "name", json_out_text(m->tensor->name),
                                "type", tern_gguf_type_name(m->tensor->type), "minus",
                                json_out_number(share(m, 0)), "zero", json_out_number(share(m, 1)), "plus",
                                json_out_number(share(m, 2)), "scale", json_out_number((double)m->scale)));
    }
    for (size_t i = 0; i < v->n_findings; i++) {
        struct tern_str text = { v->findings[i].text, strlen(v->findings[i].text) };

        json_array_append_new(
            findings, json_pack("{s:b, s:o}", "broken", v->findings[i].broken, "text", json_out_text(text)));
    }
    return json_pack("{s:o, s:o, s:b, s:i, s:o}", "matrices", matrices, "findings", findings,
                     "hashes_compared", v->has_hashes, "n_broken", (int)v->n_broken, "i2s_layout",
                     layout(&v->i2s));
}
