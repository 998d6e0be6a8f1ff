/* SPDX-License-Identifier: Apache-2.0 */
/* Figures and JSON of `tern run`: see run_output.h. */
#include "coordinator/run_output.h"

#include "coordinator/json_out.h"

#include <stdio.h>

/* Times of one answer.  The first token comes with the end of the prompt and counts to it. */
struct times {
    double prompt_ms, predicted_ms, prompt_per_s, predicted_per_s;
};

static double per_second(double n, double ms)
{
    return ms > 0 ? n * 1e3 / ms : 0;
}

static struct times times_of(const struct generate *g)
{
    const struct seq *q = &g->seq;
    struct times t = { 0 };

    if (q->t_first_ns) {
        t.prompt_ms = (double)(q->t_first_ns - q->t_start_ns) / 1e6;
        t.predicted_ms = (double)(q->t_last_ns - q->t_first_ns) / 1e6;
        t.prompt_per_s = per_second(g->n_prompt, t.prompt_ms);
        if (g->n_tokens > 1)
            t.predicted_per_s = per_second(g->n_tokens - 1, t.predicted_ms);
    }
    return t;
}

/* -- figures on stderr ----------------------------------------------------------------------------------- */

static double mib(uint64_t bytes)
{
    return (double)bytes / 1048576.0;
}

static void print_stages(const struct session *s, const struct sched_stats *st)
{
    const struct pipe *p = s->pipe;
    const double steps = st->steps ? (double)st->steps : 1, rows = st->rows ? (double)st->rows : 1;

    fprintf(stderr, "  %-12s %7s  %-10s %-6s %11s %11s %8s %9s%s\n", "stage", "layers", "cpu", "layout",
            "weights", "KV", "ms/step", "in queue", p->remote ? "  bytes in/token" : "");
    for (uint32_t i = 0; i < p->n_stages; i++) {
        const struct pipe_stage_info *g = &p->stages[i];
        const struct sched_stage_stats *x = &st->stages[i];

        char layers[24], cpu[32];

        snprintf(layers, sizeof layers, "%u-%u", (unsigned)g->first, (unsigned)g->last - 1);
        snprintf(cpu, sizeof cpu, "%s x%u", g->cpu, (unsigned)g->threads);
        fprintf(stderr, "  %-12s %7s  %-10s %-6s %7.1f MiB %7.1f MiB %8.2f %9.2f", g->name, layers, cpu,
                g->layout ? g->layout : "-", mib(g->weight_bytes), mib(g->kv_bytes),
                (double)x->compute_us / steps / 1e3, (double)x->queue_us / steps / 1e3);
        if (p->remote)
            fprintf(stderr, " %15.0f", (double)x->bytes / rows);
        fputc('\n', stderr);
    }
    fprintf(stderr, "  home: embedding %.2f ms, head %.2f ms per step", (double)st->embed_us / steps / 1e3,
            (double)st->head_us / steps / 1e3);
    if (p->remote)
        fprintf(stderr, ", %.0f bytes in per token",
                (double)st->bytes_home / (st->rows_home ? (double)st->rows_home : 1));
    fputc('\n', stderr);
}

/* Rows of the head computed for each of its rows that were answered by candidates. */
static double recomputed(const struct tern_head_stats *h)
{
    return h->screened ? (double)h->recomputed / (double)h->screened : 0;
}

static void print_head(const struct session *s)
{
    const struct tern_head_stats *h = tern_head_stats(s->head);

    fprintf(stderr, "  head: %s%s", tern_head_mode_name(tern_head_mode(s->head)),
            tern_head_mode(s->head) == TERN_HEAD_STATISTICAL ? ", may differ" : "");
    if (h->screened)
        fprintf(stderr, ", %.1f rows recomputed per token", recomputed(h));
    if (tern_head_mode(s->head) != TERN_HEAD_FULL)
        fprintf(stderr, ", %llu full passes", (unsigned long long)(h->full + h->fallback));
    fputc('\n', stderr);
}

void run_output_figures(const struct session *s, const struct generate *gens, uint32_t n, uint64_t wall_ns,
                        uint64_t seed)
{
    const struct sched_stats *st = sched_stats(s->sched);
    const double wall_ms = (double)wall_ns / 1e6;
    uint64_t prompt = 0, predicted = 0;

    fprintf(stderr, "\n");
    for (uint32_t i = 0; i < n; i++) {
        struct times t = times_of(&gens[i]);

        prompt += gens[i].n_prompt;
        predicted += gens[i].n_tokens;
        if (n > 1)
            fprintf(stderr, "  %2u  ", (unsigned)i + 1);
        else
            fputs("  ", stderr);
        fprintf(stderr, "prompt %u tokens, %.1f tokens/s  generated %u tokens, %.1f tokens/s  (%s)\n",
                (unsigned)gens[i].n_prompt, t.prompt_per_s, (unsigned)gens[i].n_tokens, t.predicted_per_s,
                generate_end_name(gens[i].end));
    }
    if (n > 1)
        fprintf(stderr,
                "  all together: prompts %llu tokens, generated %llu tokens in %.2f s, %.1f tokens/s\n",
                (unsigned long long)prompt, (unsigned long long)predicted, wall_ms / 1e3,
                per_second((double)predicted, wall_ms));
    print_stages(s, st);
    print_head(s);
    fprintf(stderr, "  %llu steps in %.2f s  wire %s  kv %s  seed %llu\n", (unsigned long long)st->steps,
            wall_ms / 1e3, tern_boundary_name(s->o->wire), tern_kv_type_name(s->o->kv),
            (unsigned long long)seed);
}

/* -- JSON ------------------------------------------------------------------------------------------------ */

static json_t *piece_json(const struct tern_tokenizer *tok, int32_t id)
{
    return json_out_text(tern_tokenizer_piece(tok, id, true));
}

static json_t *token_json(const struct generate *g, uint32_t i)
{
    const struct generate_token *t = &g->tokens[i];
    json_t *o = json_pack("{s:i, s:o}", "id", (int)t->id, "text", piece_json(g->tok, t->id)), *tops;

    if (g->o->n_logprobs < 0)
        return o;
    tops = json_array();
    for (uint32_t k = 0; k < t->n_top; k++) {
        const struct logprob *p = &g->tops[(size_t)i * (size_t)g->o->n_logprobs + k];

        json_array_append_new(tops,
                              json_pack("{s:i, s:o, s:o}", "id", (int)p->id, "text",
                                        piece_json(g->tok, p->id), "logprob", json_out_number(p->value)));
    }
    json_object_set_new(o, "logprob", json_out_number(t->logprob));
    json_object_set_new(o, "top_logprobs", tops);
    return o;
}

static json_t *stages_json(const struct session *s, const struct sched_stats *st)
{
    const double steps = st->steps ? (double)st->steps : 1, rows = st->rows ? (double)st->rows : 1;
    json_t *a = json_array();

    for (uint32_t i = 0; i < s->pipe->n_stages; i++) {
        const struct pipe_stage_info *g = &s->pipe->stages[i];
        const struct sched_stage_stats *x = &st->stages[i];

        json_array_append_new(
            a, json_pack("{s:s, s:s, s:s?, s:i, s:i, s:i, s:f, s:f, s:f, s:I, s:I}", "name", g->name, "cpu",
                         g->cpu, "layout", g->layout, "first_layer", (int)g->first, "last_layer",
                         (int)g->last - 1, "threads", (int)g->threads, "compute_ms_per_step",
                         (double)x->compute_us / steps / 1e3, "queue_ms_per_step",
                         (double)x->queue_us / steps / 1e3, "bytes_per_token", (double)x->bytes / rows,
                         "weight_bytes", (json_int_t)g->weight_bytes, "kv_bytes", (json_int_t)g->kv_bytes));
    }
    return a;
}

static json_t *head_json(const struct session *s)
{
    const struct tern_head_stats *h = tern_head_stats(s->head);

    return json_pack(
        "{s:s, s:b, s:I, s:I, s:f, s:I, s:I}", "mode", tern_head_mode_name(tern_head_mode(s->head)),
        "may_differ", tern_head_mode(s->head) == TERN_HEAD_STATISTICAL, "rows", (json_int_t)h->rows,
        "rows_screened", (json_int_t)h->screened, "recomputed_per_row", recomputed(h), "full_passes",
        (json_int_t)(h->full + h->fallback), "bytes_per_token", (json_int_t)tern_head_bytes_read(s->head));
}

static json_t *answer_json(const struct session *s, const struct generate *g, uint64_t seed)
{
    const struct sched_stats *st = sched_stats(s->sched);
    const struct times t = times_of(g);
    json_t *tokens = json_array(), *o;

    for (uint32_t i = 0; i < g->n_tokens; i++)
        json_array_append_new(tokens, token_json(g, i));
    o = json_pack("{s:o, s:o, s:s, s:{s:i, s:i, s:i}, s:I, s:s, s:s, s:s}", "text",
                  json_stringn(g->text, g->n_text), "tokens", tokens, "finish_reason",
                  generate_end_name(g->end), "usage", "prompt_tokens", (int)g->n_prompt, "completion_tokens",
                  (int)g->n_tokens, "total_tokens", (int)(g->n_prompt + g->n_tokens), "seed",
                  (json_int_t)seed, "wire", tern_boundary_name(s->o->wire), "kv", tern_kv_type_name(s->o->kv),
                  "cpu", tern_cpu_name(s->kern.level));
    if (!o)
        return NULL;
    if (g->seq.failed)
        json_object_set_new(o, "error", json_string(g->seq.err.text));
    json_object_set_new(o, "timings",
                        json_pack("{s:f, s:f, s:f, s:f}", "prompt_ms", t.prompt_ms, "predicted_ms",
                                  t.predicted_ms, "prompt_per_second", t.prompt_per_s, "predicted_per_second",
                                  t.predicted_per_s));
    json_object_set_new(o, "stages", stages_json(s, st));
    json_object_set_new(o, "head", head_json(s));
    json_object_set_new(o, "home_bytes_per_token",
                        json_real(st->rows_home ? (double)st->bytes_home / (double)st->rows_home : 0));
    return o;
}

enum tern_status run_output_json(const struct session *s, const struct generate *gens, uint32_t n,
                                 uint64_t seed, struct tern_err *err)
{
    json_t *root;

    if (n == 1) {
        root = answer_json(s, &gens[0], seed);
    } else {
        root = json_array();
        for (uint32_t i = 0; i < n; i++)
            json_array_append_new(root, answer_json(s, &gens[i], seed));
    }
    return json_out_print(&root, 9, err);
}
