/* One call on the wire: its headers, what comes of its messages, what goes of its answers. */
#ifndef PN_STREAM_H
#define PN_STREAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "bytes.h"
#include "call.h"
#include "message.h"
#include "timers.h"

/* Where the bytes of a message go. */
enum pn_course {
    IN_PREFIX,  /* to the five bytes before it */
    WAITS,      /* the prefix is whole, hot wants the message later */
    TO_HOT,
    TO_INFLATE, /* to memory of the stream's, for hot once it is whole */
    TO_PYTHON,
    HELD,       /* the message is whole, Python wants it later */
    TO_NOBODY,  /* the call is over for its client */
};

struct pn_stream {
    struct pn_call call; /* the first, so that a call is its stream */
    int32_t id;
    struct pn_stream *next;
    struct pn_stream *previous;
    struct pn_stream *next_resumed;
    bool resumed;
    struct pn_timer deadline;

    /* Headers. */
    struct pn_bytes path;
    struct pn_bytes metadata; /* fields: name, value, name, value, ... */
    uint64_t header_bytes;
    bool is_post;
    bool is_grpc;
    bool odd_timeout; /* what should be one is none */

    /* What comes. */
    enum pn_course course;
    uint8_t prefix[PN_PREFIX_BYTES];
    size_t prefix_size;
    size_t length;           /* of the message */
    size_t fed;              /* of it */
    struct pn_bytes message; /* for Python, or to be inflated */
    struct pn_bytes pending; /* came and is wanted later */
    size_t uploading_bytes;  /* its length, while hot has a part of it */
    struct pn_timer upload;  /* when hot has had it long enough */
    size_t owed_bytes;       /* of window to the client */
    bool half_closed;        /* the client sends no more */
    bool half_closed_told;

    /* Hot. */
    bool hot; /* messages are offered to it, and it hears of the end */
    bool hot_took;
    bool hot_done;

    /* Python. */
    uint64_t bridge_id; /* 0: it does not know the call */
    uint64_t ahead; /* messages that it got and has not read */
    bool hungry;    /* it waits for one */
    bool python_done;
    struct pn_bytes kept_text; /* of its status, while hot has answers to give */

    /* What goes. */
    struct pn_message *first;
    struct pn_message *last;
    size_t first_written;
    size_t queued;  /* messages */
    size_t awaited; /* answers that are to come */
    bool responded; /* the headers of the answer are on their way */
    bool deferred;  /* the session was told that there is nothing to send */
    bool over;      /* the status is decided */
    int status;
    struct pn_bytes text;     /* percent-encoded */
    struct pn_bytes trailers; /* fields */
};

struct pn_connection;

/* From the session. NULL: no memory. */
struct pn_stream *stream_new(struct pn_connection *connection, int32_t id);
/* False: no memory. */
bool stream_header(struct pn_stream *stream, const uint8_t *name, size_t name_size, const uint8_t *value,
                   size_t value_size);
void stream_headers_done(struct pn_stream *stream);
void stream_data(struct pn_stream *stream, const uint8_t *bytes, size_t size);
void stream_half_closed(struct pn_stream *stream);
void stream_gone(struct pn_stream *stream);

/* A call of one request and one answer that hot may serve. */
bool stream_is_hot_unary(const struct pn_stream *stream);
/* A call of many that hot serves. */
bool stream_is_hot_stream(const struct pn_stream *stream);

/* From Python. */
/* So many messages were read; it waits for the next. */
void stream_read(struct pn_stream *stream, uint64_t count, bool hungry);
/* Streams of messages that are hot's: no more is read of them, they end when all is answered. */
void streams_close(const char *text, size_t size);

/* Asks those again that wait. */
void streams_resume(void);
bool streams_wait_to_resume(void);

/* Nobody waits for more of the stream: hot and Python hear so. */
void stream_tell_gone(struct pn_stream *stream);

void streams_forget(void);

#endif
