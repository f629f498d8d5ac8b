/* Answers that clients have not read: a bound on them for each connection, as frontend/unread.py has it for what Python
 * answers. How large an answer will be is not known before: it is expected to be as large as the largest of the last. */
#ifndef PN_UNREAD_H
#define PN_UNREAD_H

#include <stdbool.h>
#include <stddef.h>

struct pn_connection;
struct pn_stream;

/* Whether one more message of the stream may be taken in hand: for its stream and for its connection. One of a
 * connection always may. */
bool unread_has_room(const struct pn_stream *stream);
/* A message was taken in hand: an answer is to come. */
void unread_taken(struct pn_stream *stream);
/* An answer has come, so large. */
void unread_answered(struct pn_stream *stream, size_t size);
/* Nothing comes any more. */
void unread_gone(struct pn_stream *stream);
/* Something was read: asks those again that wait, if there is room for one. */
void unread_look_again(struct pn_connection *connection);
void unread_forget(void);

#endif
