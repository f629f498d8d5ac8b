/* TLS of connections: 1.2 and newer, with HTTP/2 agreed upon by ALPN. */
#ifndef PN_TLS_H
#define PN_TLS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "bytes.h"

struct pn_connection;

struct pn_tls_files {
    const char *chain; /* PEM: certificate and those between it and the root */
    size_t chain_size;
    const char *key; /* PEM */
    size_t key_size;
    const char *clients; /* PEM: who signs clients' certificates; NULL: clients need none */
    size_t clients_size;
};

/* What connections use; on any thread. NULL: *reason says why. */
void *tls_context_new(const struct pn_tls_files *files, const char **reason);
void tls_context_free(void *made);
/* From now on new connections use this context, which is the loop's. */
void tls_use(void *context);
void tls_forget(void);

/* False: no memory, or there is no context. */
bool tls_open(struct pn_connection *connection);
void tls_close(struct pn_connection *connection);
/* As recv and send, with errno EAGAIN. */
ssize_t tls_read(struct pn_connection *connection, uint8_t *bytes, size_t room);
/* Has the connection's identity found: who the client is by its certificate. False: no memory. */
bool tls_identify(struct pn_connection *connection);
/* Bytes were received that tls_read has not given. */
bool tls_has_more(struct pn_connection *connection);
/* The handshake is not over: no call can have come. */
bool tls_is_shaking_hands(const struct pn_connection *connection);
ssize_t tls_write(struct pn_connection *connection, const uint8_t *bytes, size_t size);
/* The last of the two stopped because the socket is full. What is to be written may as well wait for the client's part of
 * the handshake. */
bool tls_waits_for_room(const struct pn_connection *connection);

#endif
