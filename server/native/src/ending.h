/* How a call ends that both hot and Python may have a part of. */
#ifndef PN_ENDING_H
#define PN_ENDING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct pn_stream;

/* The client sends no more: tells those whom it concerns once everything before has reached them. */
void ending_half_closed(struct pn_stream *stream);
/* No more messages of a stream go to hot, which answers those that it has. */
void ending_stop_hot(struct pn_stream *stream);
/* The stream is hot's alone, and Python closes these. */
bool ending_closes(const struct pn_stream *stream);
/* Ends a call whose owners have both ended it. */
void ending_finish(struct pn_stream *stream);
/* Python's end of a call: its status, sent once hot owes nothing. */
void ending_python_done(struct pn_stream *stream, int status, const char *text, size_t text_size,
                        const uint8_t *fields, size_t size);
void endings_forget(void);

#endif
