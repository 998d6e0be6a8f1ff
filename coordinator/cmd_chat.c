/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `tern chat`: a conversation with a model or a server, typed at a terminal, piped in line by line, or given
 * on the command line.
 *
 * Answers go to stdout and everything else to stderr.  On a terminal Ctrl-C stops an answer and the
 * conversation goes on; elsewhere a signal ends the program, as it ends `tern run`.
 */
#include "coordinator/chat_command.h"
#include "coordinator/chat_line.h"
#include "coordinator/chat_options.h"
#include "coordinator/chat_server.h"
#include "coordinator/chat_session.h"
#include "coordinator/commands.h"
#include "coordinator/interrupt.h"
#include "coordinator/json_out.h"
#include "coordinator/terminal_text.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>
#include <unistd.h>

struct talk {
    struct chat_options o;
    struct chat *chat; /* with a model of ours, or with a server */
    struct chat_line *line;
    bool typed;     /* by somebody at a terminal */
    bool terminal;  /* stdout is one */
    bool open_line; /* the last thing put there was no newline */
    bool closed;    /* nothing can be written to stdout any more */
    int closed_by;  /* errno of that */
    struct terminal_text safe;
};

/* -- answers --------------------------------------------------------------------------------------------- */

static bool written(struct talk *t, bool ok)
{
    if (!ok && !t->closed) {
        t->closed = true;
        t->closed_by = errno;
    }
    return !t->closed;
}

static bool put(struct talk *t, const char *text, size_t n)
{
    if (n)
        t->open_line = text[n - 1] != '\n';
    return !t->closed &&
           written(t, terminal_text_write(&t->safe, stdout, t->terminal, text, n) && fflush(stdout) == 0);
}

static bool on_text(void *user, const char *text, size_t len)
{
    struct talk *t = user;

    return t->o.engine.json ? true : put(t, text, len);
}

static double per_second(double n, double ms)
{
    return ms > 0 && n > 0 ? n * 1e3 / ms : 0;
}

/* A figure that nobody told is null. */
static json_t *count(uint32_t n)
{
    return n == CHAT_UNKNOWN ? json_null() : json_integer((json_int_t)n);
}

static enum tern_status put_json(struct talk *t, struct tern_err *err)
{
    const struct chat_answer *a = &t->chat->answer;
    const struct chat_figures *f = &t->chat->figures;
    const bool known = f->n_kept != CHAT_UNKNOWN && f->n_prompt != CHAT_UNKNOWN;
    const uint32_t n_prompt = known ? f->n_kept + f->n_prompt : CHAT_UNKNOWN;
    const bool all = known && f->n_tokens != CHAT_UNKNOWN;
    json_t *o = json_pack(
        "{s:s, s:o, s:s, s:{s:o, s:o, s:o, s:{s:o}}, s:o, s:{s:f, s:f, s:o}}", "role", "assistant", "content",
        json_out_text((struct tern_str){ a->text, a->n_text }), "finish_reason", generate_end_name(a->end),
        "usage", "prompt_tokens", count(n_prompt), "completion_tokens", count(f->n_tokens), "total_tokens",
        count(all ? n_prompt + f->n_tokens : CHAT_UNKNOWN), "prompt_tokens_details", "cached_tokens",
        count(f->n_kept), "rows_sent", f->rows_sent < 0 ? json_null() : json_integer(f->rows_sent), "timings",
        "prompt_ms", f->first_ms, "predicted_ms", f->rest_ms, "predicted_per_second",
        f->n_tokens == CHAT_UNKNOWN ? json_null()
                                    : json_real(per_second((double)f->n_tokens - 1, f->rest_ms)));

    if (!o)
        return TERN_FAIL(err, TERN_ERR_MEMORY, "no memory to print an answer");
    (void)written(t, json_dumpf(o, stdout, JSON_COMPACT | JSON_REAL_PRECISION(9)) == 0 &&
                         putchar('\n') != EOF && fflush(stdout) == 0);
    json_decref(o);
    return TERN_OK;
}

/* Why an answer is not all that there might have been. */
static void say_end(const struct talk *t)
{
    const struct chat_answer *a = &t->chat->answer;

    if (*a->note)
        fprintf(stderr, "tern chat: %s\n", a->note);
    else if (a->end == GENERATE_INTERRUPTED && t->typed && !t->o.engine.quiet)
        fputs("(stopped)\n", stderr);
}

static enum tern_status say(struct talk *t, const char *text, size_t len, struct tern_err *err)
{
    enum tern_status st;

    memset(&t->safe, 0, sizeof t->safe);
    t->open_line = false;
    if ((st = chat_ask(t->chat, text, len, err))) {
        if (t->open_line)
            put(t, "\n", 1); /* behind what had come */
        return st;
    }
    if (t->o.engine.json)
        st = put_json(t, err);
    else
        put(t, "\n", 1);
    say_end(t);
    return st;
}

/* -- where words come from ------------------------------------------------------------------------------- */

/* An answer was stopped by Ctrl-C: at a terminal the conversation goes on. */
static bool goes_on(const struct talk *t)
{
    if (t->typed)
        interrupt_forget();
    return !interrupt_signal() && !t->closed;
}

static enum tern_status say_given(struct talk *t, struct tern_err *err)
{
    enum tern_status st = TERN_OK;

    for (uint32_t i = 0; i < t->o.n_messages && !st && goes_on(t); i++)
        st = say(t, t->o.messages[i].text, t->o.messages[i].len, err);
    return st;
}

/* A line: a command, words for the model, or nothing.  TERN_END: the conversation ends. */
static enum tern_status take_line(struct talk *t, const char *text, size_t len, struct tern_err *err)
{
    if (len == 0)
        return TERN_OK;
    if (text[0] == '/' && text[1] != '/')
        return chat_command(t->chat, t->o.engine.quiet, text, err);
    return say(t, text + (text[0] == '/'), len - (text[0] == '/'), err);
}

/* At a terminal a sentence, and the conversation goes on, unless the pipeline is gone. */
static bool forgiven(const struct talk *t, const struct tern_err *err)
{
    if (!t->typed || t->chat->broken)
        return false;
    fprintf(stderr, "%s\n", err->text);
    return true;
}

static enum tern_status say_lines(struct talk *t, struct tern_err *err)
{
    enum tern_status st = TERN_OK;
    bool asked = false; /* the last key was a Ctrl-C */

    while (goes_on(t)) {
        const char *text;
        size_t len;

        st = chat_line_read(t->line, CHAT_MAX_MESSAGE_BYTES, &text, &len, err);
        if (st == TERN_END) {
            if (t->typed)
                fputc('\n', stderr);
            return TERN_OK;
        }
        if (st == TERN_AGAIN) {
            if (!t->typed || asked || interrupt_signal() != SIGINT)
                return TERN_OK;
            asked = true;
            fputs("\n(Ctrl-C again, or Ctrl-D, ends the conversation)\n", stderr);
            continue;
        }
        asked = false;
        if (!st)
            st = take_line(t, text, len, err);
        if (st == TERN_END)
            return TERN_OK;
        if (st && !forgiven(t, err))
            return st;
    }
    return TERN_OK;
}

/* -- set-up ---------------------------------------------------------------------------------------------- */

static enum tern_status begin_log(struct talk *t, struct tern_err *err)
{
    struct transcript log = { 0 };
    enum tern_status st = TERN_OK;

    if (t->o.load && (st = transcript_load(&log, t->o.load, err)))
        return st;
    if (t->o.system.text)
        st = transcript_set_system(&log, t->o.system.text, t->o.system.len, err);
    if (!st)
        st = chat_set_log(t->chat, &log, err);
    transcript_free(&log);
    return st;
}

static void greet(const struct talk *t)
{
    if (!t->typed || t->o.engine.quiet)
        return;
    t->chat->kind->describe(t->chat, stderr);
    fputs("\n/help lists commands, Ctrl-C stops an answer, Ctrl-D ends the conversation\n", stderr);
}

static enum tern_status prepare(struct talk *t, struct tern_err *err)
{
    enum tern_status st;

    interrupt_catch();
    t->terminal = isatty(STDOUT_FILENO) == 1;
    if (!t->o.n_messages) {
        if ((st = chat_line_open(!t->o.no_history, &t->line, err)))
            return st;
        t->typed = chat_line_is_terminal(t->line);
    }
    if (t->typed && t->o.engine.json)
        return TERN_FAIL(err, TERN_ERR_USAGE,
                         "--json is for -p and for messages from a pipe, not for a terminal");
    st = t->o.server ? chat_server_open(&t->o, &t->chat, err) : chat_session_open(&t->o, &t->chat, err);
    if (st)
        return st;
    t->chat->on_text = on_text;
    t->chat->user = t;
    if ((st = begin_log(t, err)) || (st = chat_begin(t->chat, err)))
        return st;
    if (t->typed)
        interrupt_outlive();
    greet(t);
    return TERN_OK;
}

static void talk_free(struct talk *t)
{
    chat_close(&t->chat);
    chat_line_close(&t->line);
    chat_options_free(&t->o);
    free(t);
}

/* A reader who went away ends the conversation without a word; any other failure to write is one. */
static int code_of_closed(const struct talk *t)
{
    struct tern_err err;

    if (t->closed_by == EPIPE)
        return 128 + SIGPIPE; /* as if the signal had not been ignored */
    (void)TERN_FAIL_SYS(&err, TERN_ERR_IO, t->closed_by, "cannot write to stdout: %s",
                        strerror(t->closed_by));
    return cmd_fail("chat", &err);
}

int cmd_chat(int argc, char **argv)
{
    struct talk *t = calloc(1, sizeof *t);
    struct tern_err err;
    enum tern_status st;
    int code = EX_OK;

    if (!t) {
        (void)TERN_FAIL(&err, TERN_ERR_MEMORY, "no memory to start");
        return cmd_fail("chat", &err);
    }
    signal(SIGPIPE, SIG_IGN);
    if ((st = chat_options_parse(argc, argv, &t->o, &err))) {
        if (st != TERN_END)
            code = cmd_fail("chat", &err);
    } else if ((st = prepare(t, &err))) {
        code = cmd_fail_or_end("chat", &err);
    } else {
        st = t->o.n_messages ? say_given(t, &err) : say_lines(t, &err);
        if (st)
            code = cmd_fail("chat", &err);
        if (interrupt_signal() && !(t->typed && interrupt_signal() == SIGINT))
            code = 128 + interrupt_signal();
        else if (t->closed && !code)
            code = code_of_closed(t);
    }
    talk_free(t);
    return code;
}
