/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What terminals and Prometheus show of a cluster: objects of strangers, tables of any width, lanes, metrics.
 */
#include "unit/unit.h"

#include "coordinator/cluster_lanes.h"
#include "coordinator/cluster_table.h"
#include "coordinator/serve/metrics_text.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct cluster_view view;

static const char whole[] =
    "{\"version\":\"1\",\"ready\":true,\"uptime_s\":3661,\"now_us\":5000000,\"model\":{\"name\":\"m\"},"
    "\"coordinator\":{\"threads\":2,\"head_ms_per_step\":1.5,\"idle_share\":0.25},"
    "\"stages\":[{\"name\":\"w1\",\"endpoint\":\"tcp://10.0.0.1:7000\",\"cpu\":\"avx2\",\"threads\":4,"
    "\"layers\":[0,14],\"memory_bytes\":1610612736,\"ms_per_step\":12.25,\"tokens_per_s\":81.5,"
    "\"idle_share\":0.07,\"queue_ms\":0.42,\"rejected\":3,\"suspect\":true,\"silent_ms\":2100},"
    "{\"name\":\"w2\",\"layers\":[15,29],\"idle_share\":null}],"
    "\"hops\":[{\"bytes\":2048,\"bytes_per_s\":10,\"p50_us\":80,\"p99_us\":1500},{\"p50_us\":null,\"p99_us\":"
    "700,\"within_us\":45},{}],"
    "\"scheduler\":{\"running\":3,\"parallel\":4},"
    "\"steps\":[{\"n\":1,\"home\":4000000,\"taken\":4500000,\"done\":5000000,"
    "\"stages\":[[3900000,4000000,4500000,9],[0,4990000,5000000,9]]}]}";

static char *text_of(void (*print)(FILE *to))
{
    char *text = NULL;
    size_t n = 0;
    FILE *to = open_memstream(&text, &n);

    assert_non_null(to);
    print(to);
    assert_int_equal(fclose(to), 0);
    return text;
}

static unsigned width;

static void rows(FILE *to)
{
    cluster_table_rows(&view, width, to);
}

static void test_table(void **state)
{
    char *text;

    (void)state;
    assert_ok(cluster_view_parse("here", whole, strlen(whole), &view, NULL, &unit_err));
    assert_int_equal(view.n_stages, 2);
    assert_true(isnan(view.stages[1].idle_share) && isnan(view.hops[1].p50_us));
    width = CLUSTER_TABLE_ANY_WIDTH;
    text = text_of(rows);
    assert_non_null(
        strstr(text, "w1           0-14    SUSPECT 2.1s     12.2   81.5    7%  420us     80us  1.5ms"));
    assert_non_null(strstr(text, "  <90us  700us"));
    assert_non_null(strstr(text, "1.5G        4  avx2         3  tcp://10.0.0.1:7000\n"));
    free(text);
    for (width = 1; width < 200; width++) {
        text = text_of(rows);
        for (const char *line = text; *line; line = strchr(line, '\n') + 1)
            assert_true(strcspn(line, "\n") <= width);
        assert_true(width < 40 ||
                    (strstr(text, "WORKER") && strstr(text, "MS/STEP") && strstr(text, "IDLE")));
        free(text);
    }
}

static void head(FILE *to)
{
    cluster_table_head(&view, "http://t\xc3\xa4rn:8080", width, to);
}

/* A line that is too long loses whole words, and numbers never their ends. */
static void test_head(void **state)
{
    char *whole_head, *text, *line, *rest = NULL;

    (void)state;
    width = CLUSTER_TABLE_ANY_WIDTH;
    whole_head = text_of(head);
    assert_non_null(strstr(whole_head, "http://t\xc3\xa4rn:8080  tern "));
    for (width = 24; width < 120; width++) {
        const char *from = whole_head;

        text = text_of(head);
        for (line = strtok_r(text, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
            const size_t n = strlen(line), accents = strstr(line, "\xc3") != NULL;

            assert_true(n - accents <= width);
            assert_memory_equal(line, from, n);
            assert_true(from[n] == ' ' || from[n] == '\n');
            from = strchr(from, '\n') + 1;
        }
        assert_true(*from == '\0');
        free(text);
    }
    free(whole_head);
}

static void test_strangers(void **state)
{
    static const char *const none[] = { "",
                                        "{",
                                        "[]",
                                        "7",
                                        "{\"version\":1,\"scheduler\":{},\"stages\":[]}",
                                        "{\"version\":\"\",\"scheduler\":[],\"stages\":[]}" };
    char out[8];

    (void)state;
    for (size_t i = 0; i < sizeof none / sizeof none[0]; i++)
        assert_int_equal(cluster_view_parse("here", none[i], strlen(none[i]), &view, NULL, &unit_err),
                         TERN_ERR_FORMAT);
    cluster_view_clean("a\x1b\xc2\x9b\xff\xe2\x80\xae"
                       "b",
                       out, sizeof out);
    assert_string_equal(out, "a????b");
    cluster_view_clean("1234567890", out, sizeof out);
    assert_string_equal(out, "1234567");
    cluster_view_clean("123456\xc3\xb6", out, sizeof out); /* never half a character */
    assert_string_equal(out, "123456");
}

static struct cluster_lanes *lanes;
static uint32_t lane;

static void draw(FILE *to)
{
    cluster_lanes_draw(lanes, lane, 5000000 - 1, 2, 4, false, to);
}

static void lane_is(uint32_t i, const char *want)
{
    char *text;

    lane = i;
    text = text_of(draw);
    assert_string_equal(text, want);
    free(text);
}

/* Cells of half a second: the last two seconds before 5 s. */
static void test_lanes(void **state)
{
    json_t *root = json_loads(whole, 0, NULL), *odd;

    (void)state;
    lanes = cluster_lanes_new();
    assert_non_null(lanes);
    assert_int_equal(cluster_lanes_add(lanes, root), 1);
    lane_is(0, "   @");
    lane_is(1, "  @ ");
    lane_is(2, "   ."); /* 10 ms of it */
    assert_int_equal(cluster_lanes_add(lanes, root), 1);
    lane_is(2, "   ."); /* not twice */
    odd = json_loads("{\"now_us\":5000000,\"uptime_s\":3661,\"steps\":[7,{\"n\":-1},{\"n\":9,\"taken\":1,"
                     "\"done\":9000000000000,\"stages\":[[],{},[0,-5,1e9],[0,4999999,5000000]]}]}",
                     0, NULL);
    assert_int_equal(cluster_lanes_add(lanes, odd), 9);
    lane_is(0, "@@@@");
    lane_is(4, "   .");
    lane_is(3, "    ");
    /* Started anew: its clock goes on, its steps begin with 1. */
    assert_int_equal(json_object_set_new(root, "uptime_s", json_real(0.1)), 0);
    assert_int_equal(cluster_lanes_add(lanes, root), 1);
    lane_is(0, "   @");
    json_decref(odd);
    json_decref(root);
    cluster_lanes_free(&lanes);
    assert_null(lanes);
}

static void has(const struct http_text *t, const char *line)
{
    if (!strstr(t->ptr, line))
        fail_msg("no '%s' in\n%s", line, t->ptr);
}

static void test_metrics(void **state)
{
    static struct snapshot p;
    struct http_counts h = { .refused_key = 5 };
    struct http_text t = { 0 };

    (void)state;
    p.n_stages = 1;
    strcpy(p.stages[0].info.name, "w\"1\\");
    p.stages[0].compute_us = 2500000;
    p.stages[0].idle_share = -1;                    /* not known */
    strcpy(p.stages[0].live.endpoint, "tcp://x:1"); /* it is known while the pipeline is not open */
    p.hops[0] = (struct snapshot_hop){ .n = 9, .p50_us = 100, .p99_us = 290, .within_us = 200 };
    p.first_token.count[0] = 1;
    p.first_token.count[3] = 2;
    p.first_token.count[SNAPSHOT_BUCKETS - 1] = 4;
    p.first_token.sum_us = 1500000;
    metrics_text(&p, &h, "a\nb\xff", &t);
    assert_false(t.failed);
    has(&t, "model=\"a\\nb\xef\xbf\xbd\"} 1\n");
    has(&t, "\ntern_stage_compute_seconds_total{stage=\"0\",worker=\"w\\\"1\\\\\"} 2.5\n");
    assert_null(strstr(t.ptr, "\ntern_stage_idle_ratio{"));
    has(&t, "\ntern_first_token_seconds_bucket{le=\"1e-06\"} 1\n");
    has(&t, "\ntern_first_token_seconds_bucket{le=\"8e-06\"} 3\n");
    has(&t, "\ntern_first_token_seconds_bucket{le=\"+Inf\"} 7\n");
    has(&t, "\ntern_first_token_seconds_sum 1.5\ntern_first_token_seconds_count 7\n");
    has(&t, "\ntern_hop_seconds_count{hop=\"1\",from=\"w\\\"1\\\\\",to=\"coordinator\"} 0\n");
    has(&t,
        "\ntern_hop_seconds{hop=\"0\",from=\"coordinator\",to=\"w\\\"1\\\\\",quantile=\"0.99\"} 0.00029\n");
    has(&t, "\ntern_hop_clock_error_seconds{hop=\"0\",from=\"coordinator\",to=\"w\\\"1\\\\\"} 0.0002\n");
    /* What the clocks cannot tell, and what is not known of a stage that is not there. */
    assert_null(strstr(t.ptr, "quantile=\"0.5\""));
    assert_null(strstr(t.ptr, "\ntern_hop_clock_error_seconds{hop=\"1\""));
    assert_null(strstr(t.ptr, "\ntern_stage_rejected_total{"));
    assert_null(strstr(t.ptr, "\ntern_stage_silent_seconds{"));
    has(&t, "\ntern_http_refused_total{reason=\"key\"} 5\n");
    http_text_free(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_table), cmocka_unit_test(test_head),
                                        cmocka_unit_test(test_strangers), cmocka_unit_test(test_lanes),
                                        cmocka_unit_test(test_metrics) };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
