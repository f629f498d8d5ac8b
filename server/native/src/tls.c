#include "tls.h"

#include <errno.h>
#include <limits.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>

#include "connection.h"
#include "identity.h"

static SSL_CTX *context;

static int choose_protocol(SSL *ssl, const unsigned char **chosen, unsigned char *chosen_size,
                           const unsigned char *offered, unsigned int offered_size, void *argument)
{
    (void)ssl;
    (void)argument;
    static const unsigned char wanted[] = {2, 'h', '2'};
    for (unsigned int i = 0; i < offered_size; i += offered[i] + 1u) {
        if (offered[i] != 2 || i + 2 >= offered_size || offered[i + 1] != wanted[1] || offered[i + 2] != wanted[2])
            continue;
        *chosen = offered + i + 1;
        *chosen_size = 2;
        return SSL_TLSEXT_ERR_OK;
    }
    return SSL_TLSEXT_ERR_ALERT_FATAL;
}

static bool use_chain(SSL_CTX *made, BIO *pem)
{
    X509 *certificate = PEM_read_bio_X509_AUX(pem, NULL, NULL, NULL);
    if (certificate == NULL)
        return false;
    bool fine = SSL_CTX_use_certificate(made, certificate) == 1;
    X509_free(certificate);
    while (fine && (certificate = PEM_read_bio_X509(pem, NULL, NULL, NULL)) != NULL) {
        fine = SSL_CTX_add0_chain_cert(made, certificate) == 1;
        if (!fine)
            X509_free(certificate);
    }
    /* The end of the file looks like an error. */
    ERR_clear_error();
    return fine;
}

static bool use_key(SSL_CTX *made, BIO *pem)
{
    EVP_PKEY *key = PEM_read_bio_PrivateKey(pem, NULL, NULL, NULL);
    if (key == NULL)
        return false;
    bool fine = SSL_CTX_use_PrivateKey(made, key) == 1 && SSL_CTX_check_private_key(made) == 1;
    EVP_PKEY_free(key);
    return fine;
}

static bool use_clients(SSL_CTX *made, BIO *pem)
{
    X509_STORE *store = SSL_CTX_get_cert_store(made);
    size_t count = 0;
    for (X509 *authority; (authority = PEM_read_bio_X509(pem, NULL, NULL, NULL)) != NULL; count++) {
        bool fine = X509_STORE_add_cert(store, authority) == 1 && SSL_CTX_add_client_CA(made, authority) == 1;
        X509_free(authority);
        if (!fine)
            return false;
    }
    ERR_clear_error();
    SSL_CTX_set_verify(made, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
    return count != 0;
}

static bool with_file(SSL_CTX *made, const char *text, size_t size, bool (*use)(SSL_CTX *, BIO *))
{
    BIO *pem = size > INT_MAX ? NULL : BIO_new_mem_buf(text, (int)size);
    if (pem == NULL)
        return false;
    bool fine = use(made, pem);
    BIO_free(pem);
    return fine;
}

void *tls_context_new(const struct pn_tls_files *files, const char **reason)
{
    SSL_CTX *made = SSL_CTX_new(TLS_server_method());
    *reason = NULL;
    if (made == NULL) {
        *reason = "no memory";
        return NULL;
    }
    SSL_CTX_set_min_proto_version(made, TLS1_2_VERSION);
    SSL_CTX_set_options(made, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION | SSL_OP_CIPHER_SERVER_PREFERENCE);
    SSL_CTX_set_mode(made, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
                               SSL_MODE_RELEASE_BUFFERS);
    SSL_CTX_set_alpn_select_cb(made, choose_protocol, NULL);
    static const unsigned char name[] = "predictd";
    SSL_CTX_set_session_id_context(made, name, sizeof name - 1);
    if (!with_file(made, files->chain, files->chain_size, use_chain))
        *reason = "the certificate cannot be used";
    else if (!with_file(made, files->key, files->key_size, use_key))
        *reason = "the key cannot be used, or is not that of the certificate";
    else if (files->clients != NULL && !with_file(made, files->clients, files->clients_size, use_clients))
        *reason = "the certificates of the clients' authorities cannot be used";
    ERR_clear_error();
    if (*reason == NULL)
        return made;
    SSL_CTX_free(made);
    return NULL;
}

void tls_context_free(void *made)
{
    SSL_CTX_free(made);
}

void tls_use(void *made)
{
    /* Connections hold the one that they began with. */
    SSL_CTX_free(context);
    context = made;
}

void tls_forget(void)
{
    tls_use(NULL);
}

bool tls_open(struct pn_connection *connection)
{
    SSL *ssl = context == NULL ? NULL : SSL_new(context);
    if (ssl == NULL)
        return false;
    connection->tls = (struct pn_tls *)(void *)ssl;
    SSL_set_accept_state(ssl);
    return SSL_set_fd(ssl, connection->watch.descriptor) == 1;
}

void tls_close(struct pn_connection *connection)
{
    SSL_free((SSL *)(void *)connection->tls);
    connection->tls = NULL;
}

/* What was left by another connection would be taken for an error of this one. */
static void prepare(void)
{
    ERR_clear_error();
    errno = 0;
}

/* What -1 of OpenSSL means, in the words of recv and send. */
static ssize_t outcome(SSL *ssl, int result)
{
    int saved = errno;
    switch (SSL_get_error(ssl, result)) {
    case SSL_ERROR_WANT_READ:
    case SSL_ERROR_WANT_WRITE:
        errno = EAGAIN;
        return -1;
    case SSL_ERROR_ZERO_RETURN:
        return 0;
    case SSL_ERROR_SYSCALL:
        errno = saved != 0 && saved != EAGAIN ? saved : ECONNRESET;
        return -1;
    default:
        errno = EPROTO;
        return -1;
    }
}

/* A client that has not asked for HTTP/2 does not get it; OpenSSL asks choose_protocol only about those that offer
 * something. */
static bool agreed(const SSL *ssl)
{
    const unsigned char *chosen;
    unsigned int size;
    SSL_get0_alpn_selected(ssl, &chosen, &size);
    return size != 0;
}

ssize_t tls_read(struct pn_connection *connection, uint8_t *bytes, size_t room)
{
    SSL *ssl = (SSL *)(void *)connection->tls;
    size_t size;
    prepare();
    int result = SSL_read_ex(ssl, bytes, room, &size);
    if (result != 1)
        return outcome(ssl, result);
    if (connection->began || agreed(ssl))
        return (ssize_t)size;
    errno = EPROTO;
    return -1;
}

bool tls_identify(struct pn_connection *connection)
{
    if (!connection->identified && connection->tls != NULL)
        connection->identified = identity_fields((SSL *)(void *)connection->tls, &connection->identity);
    if (!connection->identified)
        bytes_free(&connection->identity);
    return connection->identified || connection->tls == NULL;
}

bool tls_has_more(struct pn_connection *connection)
{
    return connection->tls != NULL && SSL_has_pending((SSL *)(void *)connection->tls);
}

ssize_t tls_write(struct pn_connection *connection, const uint8_t *bytes, size_t size)
{
    SSL *ssl = (SSL *)(void *)connection->tls;
    size_t taken;
    prepare();
    int result = SSL_write_ex(ssl, bytes, size, &taken);
    return result == 1 ? (ssize_t)taken : outcome(ssl, result);
}

bool tls_is_shaking_hands(const struct pn_connection *connection)
{
    return connection->tls != NULL && !SSL_is_init_finished((SSL *)(void *)connection->tls);
}

bool tls_waits_for_room(const struct pn_connection *connection)
{
    return SSL_want_write((SSL *)(void *)connection->tls);
}
