/* Who a client is by its certificate. */
#ifndef PN_IDENTITY_H
#define PN_IDENTITY_H

#include <openssl/ssl.h>
#include <stdbool.h>

#include "bytes.h"

/* The names in the certificate that the client showed, as fields by the names that gRPC has for them. Nothing without a
 * certificate. False: no memory. */
bool identity_fields(SSL *ssl, struct pn_bytes *fields);

#endif
