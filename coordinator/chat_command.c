/* SPDX-License-Identifier: Apache-2.0 */
/* Commands of a conversation: see chat_command.h. */
#include "coordinator/chat_command.h"

#include "coordinator/terminal_text.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

static const char help[] =
    "/help          this text\n"
    "/reset         begin a new conversation; the system prompt stays\n"
    "/system TEXT   what the model is told first, from here on; alone: show it; /system - for nothing\n"
    "/save FILE     write the conversation to a JSON file\n"
    "/load FILE     go on with a conversation from such a file\n"
    "/stats         figures of the last answer, and how full the context is\n"
    "/quit          end\n"
    "A line that begins with // is said with one of the two; one that ends in \\ goes on in the next.\n";

struct order {
    struct chat *c;
    bool quiet;
    const char *arg; /* behind the command's name; empty: nothing */
};

static enum tern_status show_system(const struct chat *c)
{
    const struct tern_chat_message *m = transcript_system(&c->log);
    struct terminal_text safe = { 0 };

    if (m) {
        (void)terminal_text_write(&safe, stderr, isatty(STDERR_FILENO) == 1, m->content.ptr, m->content.len);
        fputc('\n', stderr);
    } else {
        fputs("no system prompt\n", stderr);
    }
    return TERN_OK;
}

static enum tern_status do_help(const struct order *o, struct tern_err *err)
{
    (void)o;
    (void)err;
    fputs(help, stderr);
    return TERN_OK;
}

static enum tern_status do_reset(const struct order *o, struct tern_err *err)
{
    (void)err;
    chat_reset(o->c);
    if (!o->quiet)
        fputs("a new conversation\n", stderr);
    return TERN_OK;
}

static enum tern_status do_system(const struct order *o, struct tern_err *err)
{
    const bool none = strcmp(o->arg, "-") == 0;
    enum tern_status st;

    if (!*o->arg)
        return show_system(o->c);
    st = chat_set_system(o->c, o->arg, none ? 0 : strlen(o->arg), err);
    if (!st && !o->quiet)
        fputs(none ? "no system prompt\n" : "system prompt set\n", stderr);
    return st;
}

static enum tern_status do_save(const struct order *o, struct tern_err *err)
{
    enum tern_status st;

    if (!*o->arg)
        return TERN_FAIL(err, TERN_ERR_USAGE, "/save FILE: the file's name is missing");
    st = transcript_save(&o->c->log, o->arg, err);
    if (!st && !o->quiet)
        fprintf(stderr, "%zu messages written to %s\n", o->c->log.n, o->arg);
    return st;
}

static enum tern_status do_load(const struct order *o, struct tern_err *err)
{
    struct transcript log = { 0 };
    enum tern_status st;

    if (!*o->arg)
        return TERN_FAIL(err, TERN_ERR_USAGE, "/load FILE: the file's name is missing");
    if ((st = transcript_load(&log, o->arg, err)))
        return st;
    st = chat_set_log(o->c, &log, err);
    transcript_free(&log);
    if (!st && !o->quiet)
        fprintf(stderr, "%zu messages read from %s\n", o->c->log.n, o->arg);
    return st;
}

static void print_count(const char *before, uint32_t n, const char *behind)
{
    if (n == CHAT_UNKNOWN)
        fprintf(stderr, "%s?%s", before, behind);
    else
        fprintf(stderr, "%s%u%s", before, (unsigned)n, behind);
}

static enum tern_status do_stats(const struct order *o, struct tern_err *err)
{
    const struct chat_figures *f = &o->c->figures;

    (void)err;
    o->c->kind->stats(o->c, stderr);
    if (!f->n_answers)
        return TERN_OK;
    print_count("last answer: ", f->n_prompt, " new tokens of prompt, ");
    print_count("", f->n_kept, " kept from before; ");
    fprintf(stderr, "first token after %.0f ms; ", f->first_ms);
    print_count("", f->n_tokens, " tokens, ");
    if (f->n_tokens == CHAT_UNKNOWN)
        fputs("? tokens/s\n", stderr);
    else
        fprintf(stderr, "%.1f tokens/s\n",
                f->n_tokens > 1 && f->rest_ms > 0 ? (f->n_tokens - 1) * 1e3 / f->rest_ms : 0.0);
    return TERN_OK;
}

static enum tern_status do_quit(const struct order *o, struct tern_err *err)
{
    (void)o;
    (void)err;
    return TERN_END;
}

static const struct {
    const char *name;
    enum tern_status (*run)(const struct order *o, struct tern_err *err);
} commands[] = {
    { "help", do_help }, { "reset", do_reset }, { "system", do_system }, { "save", do_save },
    { "load", do_load }, { "stats", do_stats }, { "quit", do_quit },     { "exit", do_quit },
};

enum tern_status chat_command(struct chat *c, bool quiet, const char *line, struct tern_err *err)
{
    const size_t n = strcspn(line + 1, " \t\n");
    const struct order o = { c, quiet, line + 1 + n + strspn(line + 1 + n, " \t\n") };

    for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++)
        if (strlen(commands[i].name) == n && memcmp(commands[i].name, line + 1, n) == 0)
            return commands[i].run(&o, err);
    return TERN_FAIL(err, TERN_ERR_USAGE, "/%.*s is no command; /help lists those there are",
                     (int)(n < 40 ? n : 40), line + 1);
}
