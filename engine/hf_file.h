/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One file of a publisher's folder: mapped, limited in size, read, and found whole at the end.
 */
#ifndef TERN_ENGINE_HF_FILE_H
#define TERN_ENGINE_HF_FILE_H

#include "engine/base/status.h"

#include <stddef.h>

/* "folder/file", to be freed; NULL without memory. */
char *tern_hf_path(const char *folder, const char *file);

/* Whatever makes something of the n bytes of a file that sentences call `name`; both are gone afterwards. */
typedef enum tern_status tern_hf_reader(void *user, const char *name, const void *bytes, size_t n,
                                        struct tern_err *err);

/*
 * Has folder/file, of at most max bytes, read.  TERN_END when there is no such file (nothing is filled in
 * err).  A file that shrinks meanwhile is an error after read has succeeded, so that what was read may have
 * to be freed on failure too.
 */
enum tern_status tern_hf_file_read(const char *folder, const char *file, size_t max, tern_hf_reader *read,
                                   void *user, struct tern_err *err) TERN_MUST_CHECK;

#endif
