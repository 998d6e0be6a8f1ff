/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A cache folder of a test's own, in place of the user's.
 */
#ifndef TERN_TESTS_UNIT_CACHE_FOLDER_H
#define TERN_TESTS_UNIT_CACHE_FOLDER_H

#include <dirent.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char cache[64]; /* XDG_CACHE_HOME of this run */

static inline bool make_cache(void)
{
    strcpy(cache, "/tmp/tern_cache_XXXXXX");
    unsetenv("TERN_NO_CACHE");
    return mkdtemp(cache) && setenv("XDG_CACHE_HOME", cache, 1) == 0;
}

/* The path of the only file in the cache; false when there is none. */
static inline bool cached_file(char path[400])
{
    char dir[100];
    struct dirent *e;
    bool found = false;
    DIR *d;

    snprintf(dir, sizeof dir, "%s/tern", cache);
    d = opendir(dir);
    while (d && (e = readdir(d)))
        if (e->d_name[0] != '.') {
            snprintf(path, 400, "%s/%s", dir, e->d_name);
            found = true;
        }
    if (d)
        closedir(d);
    return found;
}

static inline void empty_cache(void)
{
    char path[400];

    while (cached_file(path))
        unlink(path);
}

static inline void remove_cache(void)
{
    char dir[100];

    empty_cache();
    snprintf(dir, sizeof dir, "%s/tern", cache);
    rmdir(dir);
    rmdir(cache);
}

#endif
