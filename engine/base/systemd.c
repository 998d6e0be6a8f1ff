/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/base/systemd.h"

#ifdef TERN_HAVE_SYSTEMD
#include "engine/base/log.h"

#include <systemd/sd-daemon.h>
#endif

void tern_systemd_tell(const char *state)
{
#ifdef TERN_HAVE_SYSTEMD
    /* Does nothing without NOTIFY_SOCKET. */
    if (sd_notify(0, state) < 0)
        tern_log(TERN_LOG_WARN, "systemd", "could not be told '%s'", state);
#else
    (void)state;
#endif
}
