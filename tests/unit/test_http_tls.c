/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The HTTP server behind TLS: a client of gnutls against certificates made here.
 */
#include "unit/http_bed.h"

#include <gnutls/gnutls.h>
#include <gnutls/x509.h>

#define SHORT_MS 400

static char dir[] = "/tmp/tern_http_tls_XXXXXX";
static char cert_path[64], key_path[64], other_path[64];

/* A new key in key_file, and in cert_file, if there is one, a certificate signed with itself. */
static void make_pair(const char *key_file, const char *cert_file, time_t until)
{
    gnutls_x509_privkey_t key;
    gnutls_x509_crt_t cert;
    gnutls_datum_t pem;

    assert_int_equal(gnutls_x509_privkey_init(&key), 0);
    assert_int_equal(gnutls_x509_privkey_generate(key, GNUTLS_PK_ECDSA,
                                                  GNUTLS_CURVE_TO_BITS(GNUTLS_ECC_CURVE_SECP256R1), 0),
                     0);
    assert_int_equal(gnutls_x509_privkey_export2(key, GNUTLS_X509_FMT_PEM, &pem), 0);
    bed_write_file(key_file, pem.data, pem.size, 0600);
    gnutls_free(pem.data);
    if (cert_file) {
        assert_int_equal(gnutls_x509_crt_init(&cert), 0);
        assert_int_equal(gnutls_x509_crt_set_version(cert, 3), 0);
        assert_int_equal(gnutls_x509_crt_set_serial(cert, "\x01", 1), 0);
        assert_int_equal(gnutls_x509_crt_set_dn_by_oid(cert, GNUTLS_OID_X520_COMMON_NAME, 0, "localhost", 9),
                         0);
        assert_int_equal(gnutls_x509_crt_set_activation_time(cert, time(NULL) - 7200), 0);
        assert_int_equal(gnutls_x509_crt_set_expiration_time(cert, until), 0);
        assert_int_equal(gnutls_x509_crt_set_key(cert, key), 0);
        assert_int_equal(gnutls_x509_crt_sign2(cert, cert, key, GNUTLS_DIG_SHA256, 0), 0);
        assert_int_equal(gnutls_x509_crt_export2(cert, GNUTLS_X509_FMT_PEM, &pem), 0);
        bed_write_file(cert_file, pem.data, pem.size, 0644);
        gnutls_free(pem.data);
        gnutls_x509_crt_deinit(cert);
    }
    gnutls_x509_privkey_deinit(key);
}

static void make_locked(const char *key_file)
{
    gnutls_x509_privkey_t key;
    static char pem[8192];
    size_t n = sizeof pem;

    assert_int_equal(gnutls_x509_privkey_init(&key), 0);
    assert_int_equal(gnutls_x509_privkey_generate(key, GNUTLS_PK_ECDSA,
                                                  GNUTLS_CURVE_TO_BITS(GNUTLS_ECC_CURVE_SECP256R1), 0),
                     0);
    assert_int_equal(gnutls_x509_privkey_export_pkcs8(key, GNUTLS_X509_FMT_PEM, "secret",
                                                      GNUTLS_PKCS_PBES2_AES_256, pem, &n),
                     0);
    gnutls_x509_privkey_deinit(key);
    bed_write_file(key_file, pem, n, 0600);
}

struct client {
    int fd;
    gnutls_session_t session;
    gnutls_certificate_credentials_t credentials;
};

static int handshake(struct client *c, const char *priorities)
{
    int rc;

    c->fd = bed_dial(&bed);
    assert_true(c->fd >= 0);
    assert_int_equal(gnutls_init(&c->session, GNUTLS_CLIENT), 0);
    assert_int_equal(gnutls_certificate_allocate_credentials(&c->credentials), 0);
    gnutls_credentials_set(c->session, GNUTLS_CRD_CERTIFICATE, c->credentials);
    gnutls_priority_set_direct(c->session, priorities, NULL);
    gnutls_transport_set_int(c->session, c->fd);
    gnutls_handshake_set_timeout(c->session, BED_GIVE_UP_MS);
    do
        rc = gnutls_handshake(c->session);
    while (rc < 0 && !gnutls_error_is_fatal(rc));
    return rc;
}

static void hang_up(struct client *c)
{
    close(c->fd);
    gnutls_deinit(c->session);
    gnutls_certificate_free_credentials(c->credentials);
}

static void say(struct client *c, const char *text)
{
    assert_int_equal(gnutls_record_send(c->session, text, strlen(text)), strlen(text));
}

static void hear(struct client *c)
{
    size_t n = 0;

    gnutls_record_set_timeout(c->session, BED_GIVE_UP_MS);
    while (n + 1 < sizeof answer) {
        ssize_t got = gnutls_record_recv(c->session, answer + n, sizeof answer - 1 - n);

        if (got == GNUTLS_E_AGAIN || got == GNUTLS_E_INTERRUPTED)
            continue;
        if (got <= 0)
            break;
        n += (size_t)got;
    }
    answer[n] = '\0';
}

static int setup(void **state)
{
    (void)state;
    bed_open(&bed, (struct http_options){ .tls_cert = cert_path, .tls_key = key_path, .max_body = 1000 });
    return 0;
}

static int setup_short(void **state)
{
    (void)state;
    bed_open(&bed, (struct http_options){
                       .tls_cert = cert_path, .tls_key = key_path, .header_timeout_ms = SHORT_MS });
    return 0;
}

static void test_requests(void **state)
{
    static char body[3000];
    struct client c;

    (void)state;
    assert_int_equal(strncmp(http_server_url(bed.server), "https://127.0.0.1:", 18), 0);
    assert_int_equal(handshake(&c, "NORMAL"), 0);
    assert_true(gnutls_protocol_get_version(c.session) >= GNUTLS_TLS1_2);
    say(&c, "POST /echo HTTP/1.1\r\nHost: localhost\r\nOrigin: https://localhost\r\n"
            "Content-Type: application/json\r\nContent-Length: 5\r\n" END "hello");
    hear(&c);
    assert_non_null(strstr(answer, "\r\n\r\nhello"));
    hang_up(&c);
    assert_int_equal(handshake(&c, "NORMAL:-VERS-ALL:+VERS-TLS1.2"), 0);
    say(&c, "GET /stream?n=2 HTTP/1.1\r\nHost: localhost\r\n" END);
    hear(&c);
    assert_non_null(strstr(answer, "[1]\r\n3\r\n[0]\r\n0\r\n\r\n"));
    hang_up(&c);
    /* The last word on a body that proves too long. */
    memset(body, 'b', sizeof body - 1);
    assert_int_equal(handshake(&c, "NORMAL"), 0);
    say(&c, "POST /echo HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nffff\r\n");
    say(&c, body);
    hear(&c);
    assert_non_null(strstr(answer, " 413 "));
    assert_non_null(strstr(answer, "\"status\":413"));
    hang_up(&c);
}

static void test_old_versions(void **state)
{
    struct client c;

    (void)state;
    assert_int_not_equal(handshake(&c, "NORMAL:-VERS-ALL:+VERS-TLS1.1:+VERS-TLS1.0:%COMPAT"), 0);
    hang_up(&c);
    assert_int_equal(atomic_load(&bed.n_handled), 0);
}

/* A hang-up is noticed within a second, one of three times: other programs may have the processors. */
static void expect_noticed(const char *request, atomic_int *begun, atomic_int *over)
{
    int ms = 1000;

    for (int n = 1; n <= 3 && ms >= 1000; n++) {
        struct client c;

        assert_int_equal(handshake(&c, "NORMAL"), 0);
        say(&c, request);
        bed_await(begun, n);
        hang_up(&c);
        ms = bed_await(over, n);
    }
    assert_in_range(ms, 0, 999);
}

static void test_hang_up(void **state)
{
    (void)state;
    expect_noticed("GET /stall HTTP/1.1\r\nHost: localhost\r\n\r\n", &bed.n_begun, &bed.n_done);
    expect_noticed("GET /block HTTP/1.1\r\nHost: localhost\r\n\r\n", &bed.n_blocked, &bed.n_noticed);
}

/* No TLS at all, half of a hello, silence: none may hold its thread. */
static void test_strangers(void **state)
{
    static const char half[] = "\x16\x03\x01\x02\x00\x01";
    int fds[3];

    (void)state;
    for (int i = 0; i < 3; i++)
        fds[i] = bed_dial(&bed);
    bed_say(fds[0], "GET /show HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_true(bed_send(fds[1], half, sizeof half - 1));
    for (int i = 0; i < 3; i++) {
        assert_true(bed_closed(fds[i], BED_GIVE_UP_MS));
        close(fds[i]);
    }
    assert_int_equal(atomic_load(&bed.n_handled), 0);
    assert_true(bed_counts(&bed).timeouts >= 2);
}

static void refuse(const char *cert, const char *key, const char *part, const char *part_2)
{
    struct http_options o = { .host = "127.0.0.1", .tls_cert = cert, .tls_key = key, .handle = bed_handle };
    struct http_server *s = NULL;
    struct tern_err err = { .text = "" };

    assert_int_not_equal(http_server_open(&o, &s, &err), TERN_OK);
    assert_null(s);
    if (!strstr(err.text, part) || !strstr(err.text, part_2))
        fail_msg("no '%s' or '%s' in: %s", part, part_2, err.text);
}

static void test_files(void **state)
{
    (void)state;
    refuse("/nonexistent/cert", key_path, "cannot read the TLS certificate", "/nonexistent/cert");
    refuse(cert_path, "/nonexistent/key", "cannot read the TLS key", "/nonexistent/key");
    refuse(dir, key_path, "not a regular file", dir);
    refuse(key_path, key_path, "is not a certificate in PEM form", key_path);
    refuse(cert_path, cert_path, "open to everybody", "chmod o=");
    make_pair(other_path, NULL, 0);
    refuse(cert_path, other_path, "are no pair", other_path);
    bed_write_file(other_path, "rubbish", 7, 0600);
    refuse(other_path, key_path, "is not a certificate", other_path);
    refuse(cert_path, other_path, "is not a private key", other_path);
    bed_write_file(other_path, "", 0, 0600);
    refuse(other_path, key_path, "is not a certificate", other_path);
    make_locked(other_path);
    refuse(cert_path, other_path, "locked with a pass phrase", other_path);
    unlink(other_path);
}

/* An old certificate is the operator's business: some clients do not care. */
static void test_expired(void **state)
{
    struct client c;

    (void)state;
    make_pair(key_path, cert_path, time(NULL) - 3600);
    bed_open(&bed, (struct http_options){ .tls_cert = cert_path, .tls_key = key_path });
    assert_int_equal(handshake(&c, "NORMAL"), 0);
    hang_up(&c);
    bed_close(&bed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_requests, setup, teardown),
        cmocka_unit_test_setup_teardown(test_old_versions, setup, teardown),
        cmocka_unit_test_setup_teardown(test_hang_up, setup, teardown),
        cmocka_unit_test_setup_teardown(test_strangers, setup_short, teardown),
        cmocka_unit_test(test_files),
        cmocka_unit_test(test_expired),
    };
    int rc;

    if (!mkdtemp(dir))
        return 1;
    snprintf(cert_path, sizeof cert_path, "%s/cert.pem", dir);
    snprintf(key_path, sizeof key_path, "%s/key.pem", dir);
    snprintf(other_path, sizeof other_path, "%s/other.pem", dir);
    make_pair(key_path, cert_path, time(NULL) + 86400);
    rc = cmocka_run_group_tests(tests, NULL, NULL);
    unlink(cert_path);
    unlink(key_path);
    rmdir(dir);
    return rc;
}
