/* A message that comes: the window that its client has for it, and the memory that it holds while it is not whole.
 *
 * A message of hot's holds its block of shared memory from its first byte on. So a connection has few of them at once, and
 * none for long: where its client is slow, the message goes to Python, which takes a block when it is whole. */
#ifndef PN_UPLOAD_H
#define PN_UPLOAD_H

#include <stdbool.h>

struct pn_stream;

/* Lets the client send as much as was taken, where more is wanted. */
void upload_give_back_window(struct pn_stream *stream);
/* Lets the client send the whole of the message that has begun. */
void upload_widen(struct pn_stream *stream);
/* Whether hot may have one more message of the connection. */
bool upload_may_begin(const struct pn_stream *stream);
void upload_begin(struct pn_stream *stream);
/* Hot has no part of a message any more. */
void upload_end(struct pn_stream *stream);
/* More of the message is to come. False: no memory to wait for it. */
bool upload_lasts(struct pn_stream *stream);

#endif
