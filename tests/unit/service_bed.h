/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the tests of services lie on: one that is open, requests of all kinds, and their answers.
 */
#ifndef TERN_TESTS_UNIT_SERVICE_BED_H
#define TERN_TESTS_UNIT_SERVICE_BED_H

#include "coordinator/serve/service.h"

#define BED_CTX      128
#define BED_KINDS    14     /* of requests; the last two need bed_make_grammars */
#define BED_PATIENCE 120000 /* ms */

extern struct engine_options bed_engine; /* of the next service */
extern struct service *bed_service;

/* cmocka's group fixture: one thread, small chunks, in this process. */
int bed_set_up(void **state);
void bed_open_service(uint32_t parallel, uint32_t max_queue);
/* Nothing is under way any more: jobs, steps, pages.  Fails the test when that does not come about. */
void bed_check_idle(void);

/* Of the service that is open. */
void bed_make_grammars(void);
void bed_free_grammars(void);

uint32_t bed_encode(const char *text, int32_t *ids, uint32_t cap);
/* Request number i < BED_KINDS, the same one each time; ids [BED_CTX] are the prompt's. */
void bed_make_request(uint32_t i, int32_t *ids, struct job_request *r);

struct answer {
    char *text;
    size_t n_text;
    struct generate_token *tokens;
    struct logprob *tops;
    uint32_t n_tokens, n_logprobs, n_pieces;
    float *rows;
    size_t n_rows;
    struct job_state state;
};

/* Waits for the end and drops what comes until then. */
void bed_drop_all(struct job *j, struct job_state *out);
/* Reads until the end; a slow reader sleeps in between.  Any thread. */
void bed_read_all(struct job *j, const struct job_request *r, unsigned slow_us, struct answer *a);
/* Request number i, while nobody else asks. */
void bed_ask_alone(uint32_t i, struct answer *a);
void bed_answer_free(struct answer *a);
/* Where two answers differ, to the bit; NULL: nowhere.  Any thread. */
const char *bed_difference(const struct answer *a, const struct answer *b);

#endif
