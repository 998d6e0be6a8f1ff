/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What ternd was told on its command line, checked.
 */
#ifndef TERN_WORKER_WORKER_CONFIG_H
#define TERN_WORKER_WORKER_CONFIG_H

#include "engine/base/limits.h"
#include "engine/base/status.h"
#include "engine/file_option.h"
#include "engine/layout_choice.h"
#include "kernels/cpu.h"

#include <stdbool.h>
#include <stdint.h>

struct worker_config {
    const char *listen; /* ADDR:PORT; borrowed from argv, as the next two are */
    const char *key_path;
    const char *allow_path;
    char model_path[4096];
    char name[TERN_MAX_NAME_BYTES + 1];
    unsigned threads;
    uint64_t memory_limit; /* bytes; 0: none */
    enum tern_cpu_level cpu;
    struct tern_file_options file;
    enum tern_layout_wish layout;
    bool verbose;
    bool quiet;                   /* verbose wins */
    int ready_fd;                 /* -1: none */
    int lifeline_fd;              /* -1: none */
    bool show_help, show_version; /* nothing else is filled then */
};

enum tern_status worker_config_parse(int argc, char **argv, struct worker_config *out,
                                     struct tern_err *err) TERN_MUST_CHECK;

void worker_config_print_help(void);

#endif
