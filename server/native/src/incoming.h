/* Messages of a call as they come: cut out of the bytes, to hot or to Python, with window for what is wanted. */
#ifndef PN_INCOMING_H
#define PN_INCOMING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct pn_stream;

/* A new stream. */
void incoming_prepare(struct pn_stream *stream);
/* Hot has no part of a message any more. */
void incoming_stop_upload(struct pn_stream *stream);
/* Tells Python of the call, unless it knows. */
void incoming_bridge(struct pn_stream *stream);
/* The client sends no more: tells those whom it concerns once everything before has reached them. */
void incoming_half_closed(struct pn_stream *stream);
/* Ends a call whose owners have both ended it. */
void incoming_finish(struct pn_stream *stream);
/* Python's end of a call: its status, sent once hot owes nothing. */
void incoming_python_done(struct pn_stream *stream, int status, const char *text, size_t text_size,
                          const uint8_t *fields, size_t size);
/* Is in no list any more. */
void incoming_forget(struct pn_stream *stream);
void incoming_forget_all(void);

#endif
