/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The command line of `tern run`: what each option sets, and one sentence for each mistake.
 */
#include "unit/unit.h"

#include "coordinator/run_options.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct run_options o;

/* Splits at spaces; "_" stands for an empty word. */
static enum tern_status parse(const char *line)
{
    static char copy[1024];
    char *argv[128] = { NULL };
    int argc = 0;

    run_options_free(&o);
    assert_true((size_t)snprintf(copy, sizeof copy, "run %s", line) < sizeof copy);
    for (char *w = strtok(copy, " "); w && argc < 127; w = strtok(NULL, " "))
        argv[argc++] = strcmp(w, "_") == 0 ? w + 1 : w;
    return run_options_parse(argc, argv, &o, &unit_err);
}

static void test_defaults(void **state)
{
    const struct sample_options *s = &o.answer.gen.sample;

    (void)state;
    assert_ok(parse("-p x"));
    assert_int_equal(o.answer.gen.n_predict, 128);
    assert_int_equal(s->top_k, 40);
    assert_true(s->temperature == 0.8 && s->top_p == 0.95 && s->min_p == 0.05 && s->repeat_penalty == 1.0);
    assert_true(s->frequency_penalty == 0 && s->presence_penalty == 0 && s->repeat_last_n == 64);
    assert_int_equal(o.answer.gen.n_logprobs, -1);
    assert_int_equal(o.answer.gen.n_stops, 0);
    assert_int_equal(o.engine.wire, TERN_BOUNDARY_DEFAULT);
    assert_int_equal(o.engine.chunk, 0);
    assert_int_equal(o.engine.cpu, tern_cpu_detect());
    assert_int_equal(o.engine.dead_after_ms, 3000);
    assert_in_range(o.engine.threads, 1, 256);
    assert_false(o.answer.seed_given);
    assert_int_equal(o.engine.local, 0);
    assert_false(o.default_prompt);
}

static void test_values(void **state)
{
    const struct sample_options *s = &o.answer.gen.sample;

    (void)state;
    assert_ok(parse(
        "-m a.gguf -p one --prompt two -n 5 -c 100 -t 3 --temp 0.5 --top-k 7 --top-p 0.6 --min-p 0.1 "
        "--repeat-penalty 1.3 --repeat-last-n -1 --frequency-penalty -0.5 --presence-penalty 0.25 "
        "--seed 99 --stop END -r STOP --logit-bias 5+1.5 --logit-bias 6-inf --logit-bias 7-2 --ignore-eos "
        "--wire int8x2 --cpu ref --pre default --i2s-layout b --layout 1.6bit --chunk 7 "
        "--local 3 --split 1,2,3 "
        "--dead-after 900 --json --logprobs 4 --logits-out f --verbose --display-prompt"));
    assert_string_equal(o.engine.model, "a.gguf");
    assert_int_equal(o.n_prompts, 2);
    assert_int_equal(o.prompts[1].len, 3);
    assert_memory_equal(o.prompts[1].text, "two", 3);
    assert_int_equal(o.answer.gen.n_predict, 5);
    assert_int_equal(o.engine.ctx, 100);
    assert_int_equal(o.engine.threads, 3);
    assert_true(s->temperature == 0.5 && s->top_k == 7 && s->top_p == 0.6 && s->min_p == 0.1);
    assert_true(s->repeat_penalty == 1.3 && s->repeat_last_n == -1);
    assert_true(s->frequency_penalty == -0.5 && s->presence_penalty == 0.25);
    assert_true(o.answer.seed_given && s->seed == 99);
    assert_int_equal(o.answer.gen.n_stops, 2);
    assert_string_equal(o.answer.gen.stops[1], "STOP");
    assert_int_equal(s->n_bias, 3);
    assert_true(s->bias[0].id == 5 && s->bias[0].value == 1.5f);
    assert_true(s->bias[1].id == 6 && s->bias[1].value == -INFINITY);
    assert_true(s->bias[2].id == 7 && s->bias[2].value == -2.0f);
    assert_true(o.answer.gen.ignore_eos && o.engine.json && o.engine.verbose && o.display_prompt);
    assert_int_equal(o.engine.wire, TERN_BOUNDARY_INT8X2);
    assert_int_equal(o.engine.cpu, TERN_CPU_REF);
    assert_string_equal(o.engine.pre, "default");
    assert_int_equal(o.engine.file.i2s_layout, TERN_I2S_B);
    assert_int_equal(o.engine.layout, TERN_LAYOUT_5TRIT);
    assert_int_equal(o.engine.chunk, 7);
    assert_int_equal(o.engine.local, 3);
    assert_int_equal(o.engine.n_split, 3);
    assert_int_equal(o.engine.split[2], 3);
    assert_int_equal(o.engine.dead_after_ms, 900);
    assert_int_equal(o.answer.gen.n_logprobs, 4);
    assert_string_equal(o.logits_out, "f");

    assert_ok(parse("-p x --local 3 --split 1,2,3 --split measured"));
    assert_true(o.engine.split_measured && !o.engine.n_split);
    assert_ok(parse("-p x --local 3 --split measured --split even"));
    assert_true(!o.engine.split_measured && !o.engine.n_split);

    assert_ok(parse("-p x -n -1 -c 0 --chunk all --temp -1 --seed -1 --top-k 0"));
    assert_int_equal(o.answer.gen.n_predict, UINT32_MAX);
    assert_true(o.engine.ctx_trained);
    assert_int_equal(o.engine.chunk, TERN_MAX_STEP_ROWS);
    assert_false(o.answer.seed_given);
    assert_int_equal(o.answer.gen.sample.top_k, 0);
}

static void test_prompt_files(void **state)
{
    char path[] = "/tmp/tern_prompt_XXXXXX", line[64];
    int fd = mkstemp(path);
    FILE *f;

    (void)state;
    assert_true(fd >= 0);
    f = fdopen(fd, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite("a\0b\n\n", 1, 5, f), 5);
    assert_int_equal(fclose(f), 0);
    snprintf(line, sizeof line, "-p x -f %s", path);
    assert_ok(parse(line));
    remove(path);
    assert_int_equal(o.n_prompts, 2);
    assert_int_equal(o.prompts[1].len, 4); /* one newline dropped, zero bytes kept */
    assert_memory_equal(o.prompts[1].text, "a\0b\n", 4);
    assert_int_equal(parse(line), TERN_ERR_IO);
}

static void test_mistakes(void **state)
{
    static const struct {
        const char *line, *word; /* the sentence contains it */
    } bad[] = {
        { "--bogus", "--bogus" },
        { "-Z", "-Z" },
        { "-n", "-n" },
        { "--temp", "--temp" },
        { "word", "word" },
        { "-n many", "many" },
        { "-n -2", "less than -1" },
        { "-n 3x", "3x" },
        { "-n _", "-n" },
        { "-n 99999999999999999999", "-n" },
        { "-c 2000000", "-c" },
        { "-t 0", "-t" },
        { "-t 257", "-t" },
        { "--temp nan", "--temp" },
        { "--temp inf", "--temp" },
        { "--top-p 1.5", "--top-p" },
        { "--top-p -0.1", "--top-p" },
        { "--min-p 2", "--min-p" },
        { "--top-k -1", "--top-k" },
        { "--repeat-penalty 0", "--repeat-penalty" },
        { "--repeat-last-n -2", "--repeat-last-n" },
        { "--frequency-penalty x", "--frequency-penalty" },
        { "--seed -2", "--seed" },
        { "--seed 9223372036854775808", "--seed" },
        { "--stop _", "--stop" },
        { "--logit-bias 5", "--logit-bias" },
        { "--logit-bias +5", "--logit-bias" },
        { "--logit-bias 5++1", "--logit-bias" },
        { "--logit-bias 5+inf", "--logit-bias" },
        { "--logit-bias 5+nan", "--logit-bias" },
        { "--logit-bias 5+", "--logit-bias" },
        { "--logit-bias 99999999999999999999999999+1", "--logit-bias" },
        { "--logit-bias 4294967297+1", "--logit-bias" },
        { "--json --logprobs 101", "--logprobs" },
        { "--logprobs 3", "--json" },
        { "--wire int9", "int8x2" },
        { "--cpu sse", "avx2" },
        { "--i2s-layout AB", "--i2s-layout" },
        { "--i2s-layout _", "--i2s-layout" },
        { "--layout 1.6", "--layout" },
        { "--chunk 0", "--chunk" },
        { "--chunk 513", "--chunk" },
        { "--local 0", "--local" },
        { "--local 65", "--local" },
        { "--split 1,2", "--local" },
        { "--split measured", "--local" },
        { "--local 3 --split 1,2", "--split" },
        { "--local 3 --split odd", "--split" },
        { "--local 2 --split 1,", "--split" },
        { "--local 2 --split ,1", "--split" },
        { "--local 2 --split 1,0", "--split" },
        { "--local 2 --split 1;2", "--split" },
        { "--local 2 --cluster f", "--cluster" },
        { "--cluster f", "--key" },
        { "--key f", "--cluster" },
        { "--dead-after 10", "--dead-after" },
        { "-q --verbose", "--verbose" },
        { "-m _", "-m" },
        { "-f /no/such/file", "/no/such/file" },
    };

    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        char line[256];
        enum tern_status st;

        snprintf(line, sizeof line, "-p x %s", bad[i].line);
        memset(&unit_err, 0, sizeof unit_err);
        st = parse(line);
        if (st < TERN_ERR_USAGE || !strstr(unit_err.text, bad[i].word))
            fail_msg("%s: status %s, '%s'", bad[i].line, tern_status_name(st), unit_err.text);
    }
}

static void test_too_many(void **state)
{
    char line[1000] = "";

    (void)state;
    for (int i = 0; i < 17; i++)
        strcat(line, "--stop x ");
    assert_int_equal(parse(line), TERN_ERR_LIMIT);
    snprintf(line, sizeof line, "-p x --stop %0300d", 0);
    assert_int_equal(parse(line), TERN_ERR_USAGE);
}

static int tear_down(void **state)
{
    (void)state;
    run_options_free(&o);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_defaults), cmocka_unit_test(test_values),   cmocka_unit_test(test_prompt_files),
        cmocka_unit_test(test_mistakes), cmocka_unit_test(test_too_many),
    };

    /* The default model is the business of commands.c; here any name will do. */
    setenv("TERN_MODEL", "some.gguf", 1);
    return cmocka_run_group_tests(tests, NULL, tear_down);
}
