/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The page that `tern serve` shows at "/": one file without requests to elsewhere, made at build time from
 * the files beside this one (embed_page.cmake).
 *
 * It must be served with its policy.  That names the hash of each of its scripts, and nothing else may run:
 * whatever a model writes stays text even if the page had a mistake.
 */
#ifndef TERN_COORDINATOR_SERVE_PAGE_PAGE_H
#define TERN_COORDINATOR_SERVE_PAGE_PAGE_H

#include <stddef.h>

extern const unsigned char tern_page[]; /* [tern_page_len] HTML in UTF-8, NUL behind it */
extern const size_t tern_page_len;
extern const char tern_page_csp[]; /* value of the header Content-Security-Policy */

#endif
