/* SPDX-License-Identifier: Apache-2.0 */
/* The page at /, with the policy that it needs, and no second time to who has it already. */
#include "coordinator/serve/api_impl.h"
#include "coordinator/serve/page/page.h"

#include <string.h>

enum tern_status api_get_page(struct api *a, struct http_exchange *x, const struct http_request *r,
                              struct api_fault *f)
{
    const char *known = http_header(x, "If-None-Match");

    (void)r;
    if (!a->o.page) {
        api_fault_http(f, 404, "There is nothing at /: the page is switched off.");
        return TERN_ERR_USAGE;
    }
    http_reply_header(x, "Content-Security-Policy", tern_page_csp);
    http_reply_header(x, "X-Frame-Options", "DENY");
    http_reply_header(x, "Cache-Control", "no-cache"); /* to be asked about each time */
    http_reply_header(x, "ETag", a->etag);
    if (known && strstr(known, a->etag))
        http_reply(x, 304, "text/html; charset=utf-8", "", 0);
    else
        http_reply_static(x, 200, "text/html; charset=utf-8", (const char *)tern_page, tern_page_len);
    return TERN_OK;
}
