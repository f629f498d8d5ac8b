/* Messages of a call as they come: cut out of the bytes, to hot or to Python, with window for what is wanted. */
#ifndef PN_INCOMING_H
#define PN_INCOMING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct pn_stream;

/* Tells Python of the call, unless it knows. */
void incoming_bridge(struct pn_stream *stream);
/* Takes from hot what it has of a message, for Python. */
void incoming_take_back(struct pn_stream *stream);
/* Is in no list any more. */
void incoming_forget(struct pn_stream *stream);
void incoming_forget_all(void);

#endif
