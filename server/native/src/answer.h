/* What goes to the client of a call: headers, messages, status. */
#ifndef PN_ANSWER_H
#define PN_ANSWER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct pn_message;
struct pn_stream;

/* Headers with further metadata (fields), unless they are on their way. */
void answer_headers(struct pn_stream *stream, const uint8_t *fields, size_t size);
/* One message, whose reference is taken. */
void answer_message(struct pn_stream *stream, struct pn_message *message);
/* The status, behind all messages. */
void answer_status(struct pn_stream *stream, int status, const char *text, size_t text_size, const uint8_t *fields,
                   size_t size);
/* The same with a text of ours. */
void answer_failure(struct pn_stream *stream, int status, const char *text);
/* An answer of HTTP's own, to what is not gRPC. */
void answer_http(struct pn_stream *stream, const char *status);
/* The session sends `length` bytes of messages behind the header of their frame. Gives 0 or an error of nghttp2. */
int answer_write(struct pn_stream *stream, const uint8_t *header, size_t length);
/* Frees messages that were not sent. */
void answer_forget(struct pn_stream *stream);

#endif
