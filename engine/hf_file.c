/* SPDX-License-Identifier: Apache-2.0 */
/* One file of a publisher's folder: see hf_file.h. */
#include "engine/hf_file.h"

#include "engine/mapping.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

char *tern_hf_path(const char *folder, const char *file)
{
    char *path;

    return asprintf(&path, "%s/%s", folder, file) < 0 ? NULL : path;
}

enum tern_status tern_hf_file_read(const char *folder, const char *file, size_t max, tern_hf_reader *read,
                                   void *user, struct tern_err *err)
{
    char *path = tern_hf_path(folder, file);
    struct tern_mapping map;
    struct tern_err why;
    enum tern_status st;

    if (!path)
        return TERN_FAIL(err, TERN_ERR_MEMORY, "no memory to read %s", file);
    st = tern_mapping_open(path, &map, &why);
    free(path);
    if (st) {
        if (why.sys_errno == ENOENT)
            return TERN_END;
        if (err)
            *err = why;
        return st;
    }
    if (map.size > max)
        st = TERN_FAIL(err, TERN_ERR_LIMIT, "%s: has %zu bytes, at most %zu are allowed", map.path, map.size,
                       max);
    else
        st = read(user, map.path, map.bytes, map.size, err);
    if (tern_mapping_check(&map, &why)) { /* what was read may have been zeros */
        st = why.status;
        if (err)
            *err = why;
    }
    tern_mapping_close(&map);
    return st;
}
