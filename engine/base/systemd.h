/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Telling systemd how a service fares: sd_notify(3).
 */
#ifndef TERN_ENGINE_BASE_SYSTEMD_H
#define TERN_ENGINE_BASE_SYSTEMD_H

/* "READY=1", "STOPPING=1".  Does nothing where systemd has not started this program, or where the build has
 * no libsystemd; that it could not be told is logged. */
void tern_systemd_tell(const char *state);

#endif
