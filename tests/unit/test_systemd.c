/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What systemd is told, read from a socket in its place.
 */
#include "engine/base/systemd.h"
#include "unit/unit.h"

#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static void test_tell(void **state)
{
    char dir[] = "/tmp/tern-systemd-XXXXXX", got[64] = "";
    struct sockaddr_un at = { .sun_family = AF_UNIX };
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    (void)state;
    assert_non_null(mkdtemp(dir));
    assert_true(fd >= 0);
    strcat(strcpy(at.sun_path, dir), "/notify");
    assert_int_equal(bind(fd, (struct sockaddr *)&at, sizeof at), 0);
    unsetenv("NOTIFY_SOCKET");
    tern_systemd_tell("READY=1");
    assert_int_equal(recv(fd, got, sizeof got - 1, 0), -1);
    setenv("NOTIFY_SOCKET", at.sun_path, 1);
    tern_systemd_tell("READY=1");
    tern_systemd_tell("STOPPING=1");
    assert_int_equal(recv(fd, got, sizeof got - 1, 0), 7);
    assert_string_equal(got, "READY=1");
    assert_int_equal(recv(fd, got, sizeof got - 1, 0), 10);
    assert_string_equal(got, "STOPPING=1");
    unsetenv("NOTIFY_SOCKET");
    close(fd);
    unlink(at.sun_path);
    rmdir(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_tell) };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
