/* nghttp2's session of a connection: what it is told, and what it tells. */
#ifndef PN_SESSION_H
#define PN_SESSION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What a call may send before somebody decided about it. */
#define STREAM_WINDOW_BYTES 65535

struct pn_connection;

/* False: no memory. */
bool session_open(struct pn_connection *connection);
/* Bytes of the client. False: it is not HTTP/2, or it misbehaved so that nothing can be said to it. */
bool session_feed(struct pn_connection *connection, const uint8_t *bytes, size_t size);
void sessions_forget(void);

#endif
