/* SPDX-License-Identifier: Apache-2.0 */
/*
 * check: runs the comparisons, level by level.
 *
 *   check [--list] [--function=GLOB] [--level=NAME] [--seed=N] [--bench]
 *
 * An op that a level leaves to the level below is not run again.  A level that this CPU or build lacks is
 * reported as skipped.  A fault is charged to the op that caused it and the run goes on.  Exit status: 0 when
 * all agree, 1 when not, 2 for a usage error, 77 when nothing could be compared.
 */
#include "tests/kernels/check.h"

#include <fnmatch.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* Seconds after which an op counts as hanging. */
#define OP_SECONDS 240

static const struct check_op *const lists[] = { check_ternary_ops, check_row_ops, check_dot_ops,
                                                check_probe_ops, check_screen_ops };

static sigjmp_buf fault_jump;
static volatile sig_atomic_t op_running;

/* A fault of an op goes back to run_op; any other one is the harness's own and ends it in the usual way. */
static void on_fault(int number)
{
    if (op_running)
        siglongjmp(fault_jump, number);
    signal(number, SIG_DFL);
    raise(number);
}

static void catch_faults(void)
{
    static char stack[64 * 1024];
    stack_t alt = { .ss_sp = stack, .ss_size = sizeof stack };
    sigaltstack(&alt, NULL);
    struct sigaction action = { .sa_handler = on_fault, .sa_flags = SA_ONSTACK };
    sigemptyset(&action.sa_mask);
    const int signals[] = { SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGALRM };
    for (size_t i = 0; i < sizeof signals / sizeof signals[0]; i++)
        sigaction(signals[i], &action, NULL);
}

struct options {
    bool list, bench;
    const char *glob;
    const char *level;
    uint64_t seed;
};

struct totals {
    unsigned compared, failed;
};

static uint64_t hash_name(const char *name)
{
    uint64_t h = 14695981039346656037u;
    for (; *name; name++)
        h = (h ^ (unsigned char)*name) * 1099511628211u;
    return h;
}

static bool same_pointer(const struct tern_kernels *a, const struct tern_kernels *b, size_t offset)
{
    return memcmp((const char *)a + offset, (const char *)b + offset, sizeof(void (*)(void))) == 0;
}

/* The whole op under one net; a fault lands here with the signal's number. */
static void run_op(struct check *c, const struct check_op *op)
{
    int number = sigsetjmp(fault_jump, 1);
    if (number == 0) {
        alarm(OP_SECONDS);
        op_running = 1;
        if (c->bench)
            op->measure(c);
        else
            op->compare(c);
    } else {
        c->failures++;
        printf("    %s %s in case \"%s\"\n", c->op, number == SIGALRM ? "hangs" : "faults", c->where);
    }
    op_running = 0;
    alarm(0);
}

static void run_level(const struct options *o, enum tern_cpu_level level, const struct tern_kernels *below,
                      struct totals *t)
{
    static struct check c;
    c.bench = o->bench;
    tern_kernels_init(&c.ref, TERN_CPU_REF);
    tern_kernels_init(&c.new, level);
    for (size_t l = 0; l < sizeof lists / sizeof lists[0]; l++) {
        for (const struct check_op *op = lists[l]; op->name; op++) {
            bool same = below && same_pointer(&c.new, below, op->offset);
            if (same || fnmatch(o->glob, op->name, 0) != 0 || (o->bench && !op->measure))
                continue;
            c.rng = o->seed ^ hash_name(op->name);
            c.failures = 0;
            c.op = op->name;
            c.where[0] = '\0';
            run_op(&c, op);
            t->compared++;
            t->failed += c.failures != 0;
            if (!o->bench)
                printf("%-10s %-14s %s\n", tern_cpu_name(level), op->name, c.failures ? "DIFFERS" : "same");
            fflush(stdout);
        }
    }
}

static bool can_run(enum tern_cpu_level level)
{
#ifdef CHECK_EMULATED /* the level files were compiled to portable C */
    (void)level;
    return true;
#else
    return tern_cpu_supports(level);
#endif
}

static void run_levels(const struct options *o, struct totals *t)
{
    struct tern_kernels below, now;
    for (int i = o->bench ? TERN_CPU_REF : TERN_CPU_REF + 1; i < TERN_CPU_N_LEVELS; i++) {
        enum tern_cpu_level level = (enum tern_cpu_level)i;
        bool wanted = !o->level || strcmp(o->level, tern_cpu_name(level)) == 0;
        if (!can_run(level)) {
            if (wanted)
                printf("%-10s SKIPPED: this CPU does not have it\n", tern_cpu_name(level));
            continue;
        }
        tern_kernels_init(&below, tern_cpu_below(level));
        tern_kernels_init(&now, level);
        if (wanted && now.level != level)
            printf("%-10s SKIPPED: this build does not contain it\n", tern_cpu_name(level));
        else if (wanted)
            run_level(o, level, level == TERN_CPU_REF ? NULL : &below, t);
    }
}

static void list_ops(void)
{
    for (size_t l = 0; l < sizeof lists / sizeof lists[0]; l++) {
        for (const struct check_op *op = lists[l]; op->name; op++)
            printf("%s\n", op->name);
    }
}

static bool parse(int argc, char **argv, struct options *o)
{
    *o = (struct options){ .glob = "*", .seed = (uint64_t)time(NULL) };
    for (int i = 1; i < argc; i++) {
        const char *a = argv[i];
        char *end = NULL;
        enum tern_cpu_level level;
        if (strcmp(a, "--list") == 0) {
            o->list = true;
        } else if (strcmp(a, "--bench") == 0) {
            o->bench = true;
        } else if (strncmp(a, "--function=", 11) == 0) {
            o->glob = a + 11;
        } else if (strncmp(a, "--level=", 8) == 0 && tern_cpu_by_name(a + 8, &level)) {
            o->level = a + 8;
        } else if (strncmp(a, "--seed=", 7) == 0 && a[7] != '\0') {
            o->seed = strtoull(a + 7, &end, 0);
            if (*end != '\0')
                return false;
        } else {
            return false;
        }
    }
    return true;
}

int main(int argc, char **argv)
{
    struct options o;
    if (!parse(argc, argv, &o)) {
        fprintf(stderr, "usage: %s [--list] [--function=GLOB] [--level=NAME] [--seed=N] [--bench]\n",
                argv[0]);
        return 2;
    }
    if (o.list) {
        list_ops();
        return 0;
    }
    tern_cpu_set_float_mode();
    catch_faults();
    struct totals t = { 0 };
    if (!o.bench)
        printf("seed %llu\n", (unsigned long long)o.seed);
    run_levels(&o, &t);
    if (o.bench)
        return 0;
    printf("%u compared, %u differ\n", t.compared, t.failed);
    if (t.failed)
        return 1;
    return t.compared ? 0 : 77;
}
