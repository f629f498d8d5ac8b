/* Bytes between a connection's socket and its HTTP/2 session. */
#ifndef PN_TRANSFER_H
#define PN_TRANSFER_H

#include <stdbool.h>

struct pn_connection;

/* Reads what there is, up to a share of the round. False: the connection is over. */
bool transfer_in(struct pn_connection *connection);
/* Writes as much as the socket takes. False: the connection is over. */
bool transfer_out(struct pn_connection *connection);

#endif
