/* SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/serve/http_tls.h"

#include "engine/base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <gnutls/gnutls.h>
#include <gnutls/x509.h>
#include <sodium.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define MAX_PEM_BYTES ((size_t)1 << 20)
#define MAX_CHAIN     16

static enum tern_status read_fd(int fd, const char *what, const char *path, bool secret, char **out,
                                struct tern_err *err)
{
    struct stat sb;
    char *text;
    size_t len = 0;

    if (fstat(fd, &sb) != 0 || !S_ISREG(sb.st_mode))
        return TERN_FAIL(err, TERN_ERR_IO, "the %s '%s' is not a regular file", what, path);
    if (secret && (sb.st_mode & 07))
        return TERN_FAIL(err, TERN_ERR_IO, "the %s '%s' is open to everybody (mode %04o); run: chmod o= %s",
                         what, path, (unsigned)(sb.st_mode & 07777), path);
    if ((uint64_t)sb.st_size > MAX_PEM_BYTES)
        return TERN_FAIL(err, TERN_ERR_LIMIT, "the %s '%s' is larger than %zu bytes", what, path,
                         MAX_PEM_BYTES);
    text = calloc(1, (size_t)sb.st_size + 1);
    if (!text)
        return TERN_FAIL(err, TERN_ERR_MEMORY, "no memory to read '%s'", path);
    while (len < (size_t)sb.st_size) {
        ssize_t got = read(fd, text + len, (size_t)sb.st_size - len);

        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            break;
        len += (size_t)got;
    }
    text[len] = '\0';
    *out = text;
    return TERN_OK;
}

static enum tern_status read_pem(const char *what, const char *path, bool secret, char **out,
                                 struct tern_err *err)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    enum tern_status st;

    if (fd < 0)
        return TERN_FAIL_SYS(err, TERN_ERR_IO, errno, "cannot read the %s '%s': %s", what, path,
                             strerror(errno));
    st = read_fd(fd, what, path, secret, out, err);
    close(fd);
    return st;
}

static gnutls_datum_t datum_of(char *text)
{
    return (gnutls_datum_t){ (unsigned char *)text, (unsigned)strlen(text) };
}

static void warn_of_dates(const char *path, gnutls_x509_crt_t leaf)
{
    time_t now = time(NULL);

    if (gnutls_x509_crt_get_expiration_time(leaf) < now)
        tern_log(TERN_LOG_WARN, "tls.expired", "the certificate %s is not valid any more", path);
    else if (gnutls_x509_crt_get_activation_time(leaf) > now)
        tern_log(TERN_LOG_WARN, "tls.early", "the certificate %s is not valid yet", path);
}

static enum tern_status check_cert(const char *path, char *pem, struct tern_err *err)
{
    gnutls_x509_crt_t chain[MAX_CHAIN];
    gnutls_datum_t data = datum_of(pem);
    unsigned n = MAX_CHAIN;
    int rc = gnutls_x509_crt_list_import(chain, &n, &data, GNUTLS_X509_FMT_PEM, 0);

    if (rc < 0)
        return TERN_FAIL(err, TERN_ERR_FORMAT, "'%s' is not a certificate in PEM form: %s", path,
                         gnutls_strerror(rc));
    warn_of_dates(path, chain[0]);
    for (unsigned i = 0; i < n; i++)
        gnutls_x509_crt_deinit(chain[i]);
    return TERN_OK;
}

static enum tern_status check_key(const char *path, char *pem, struct tern_err *err)
{
    gnutls_datum_t data = datum_of(pem);
    gnutls_x509_privkey_t key;
    int rc;

    if (gnutls_x509_privkey_init(&key) < 0)
        return TERN_FAIL(err, TERN_ERR_MEMORY, "no memory for the key '%s'", path);
    rc = gnutls_x509_privkey_import2(key, &data, GNUTLS_X509_FMT_PEM, NULL, 0);
    gnutls_x509_privkey_deinit(key);
    if (rc == GNUTLS_E_DECRYPTION_FAILED)
        return TERN_FAIL(err, TERN_ERR_UNSUPPORTED,
                         "the TLS key '%s' is locked with a pass phrase; make a plain one with: openssl pkey",
                         path);
    if (rc < 0)
        return TERN_FAIL(err, TERN_ERR_FORMAT, "'%s' is not a private key in PEM form: %s", path,
                         gnutls_strerror(rc));
    return TERN_OK;
}

static enum tern_status check_pair(const char *cert_path, char *cert, const char *key_path, char *key,
                                   struct tern_err *err)
{
    gnutls_datum_t c = datum_of(cert), k = datum_of(key);
    gnutls_certificate_credentials_t pair;
    int rc;

    if (gnutls_certificate_allocate_credentials(&pair) < 0)
        return TERN_FAIL(err, TERN_ERR_MEMORY, "no memory for the certificate '%s'", cert_path);
    rc = gnutls_certificate_set_x509_key_mem(pair, &c, &k, GNUTLS_X509_FMT_PEM);
    gnutls_certificate_free_credentials(pair);
    if (rc < 0)
        return TERN_FAIL(err, TERN_ERR_FORMAT, "the certificate '%s' and the key '%s' are no pair: %s",
                         cert_path, key_path, gnutls_strerror(rc));
    return TERN_OK;
}

enum tern_status http_tls_load(const char *cert_path, const char *key_path, struct http_tls *out,
                               struct tern_err *err)
{
    struct http_tls t = { .cert = NULL };
    enum tern_status st = read_pem("TLS certificate", cert_path, false, &t.cert, err);

    if (!st)
        st = read_pem("TLS key", key_path, true, &t.key, err);
    if (!st)
        st = check_cert(cert_path, t.cert, err);
    if (!st)
        st = check_key(key_path, t.key, err);
    if (!st)
        st = check_pair(cert_path, t.cert, key_path, t.key, err);
    if (st) {
        http_tls_wipe(&t);
        return st;
    }
    *out = t;
    return TERN_OK;
}

void http_tls_wipe(struct http_tls *t)
{
    if (t->key)
        sodium_memzero(t->key, strlen(t->key));
    free(t->key);
    free(t->cert);
    memset(t, 0, sizeof *t);
}
