/* One client's connection: its socket, its HTTP/2 session, its times. */
#ifndef PN_CONNECTION_H
#define PN_CONNECTION_H

#include <nghttp2/nghttp2.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#include "bytes.h"
#include "glitches.h"
#include "loop.h"
#include "output.h"
#include "timers.h"

struct pn_stream;
struct pn_tls;

/* How far a connection is on its way out. */
enum pn_leaving {
    STAYS,
    NOTIFIED, /* the client was told to open no more streams, and may not have heard it */
    LEAVES,   /* later streams are ignored; closed when those before have ended */
};

struct pn_connection {
    struct pn_watch watch;
    nghttp2_session *session;
    struct pn_tls *tls; /* NULL: plain text */
    struct pn_output output;
    struct pn_stream *streams;
    size_t stream_count;
    struct pn_bytes identity; /* of its certificate; see identity.h */
    bool identified;          /* that was looked for */
    size_t unread_bytes; /* of messages that are queued and not yet written */
    size_t uploading_bytes; /* of messages that hot has a part of */
    size_t awaited;      /* answers that are to come of messages that hot or a stream's Python has */
    uint64_t inflated_at_ns;    /* the round in which a message was inflated last */
    uint64_t inflating_left_ns; /* for more of them in it */
    bool waits_unread;   /* a stream waits until some of that is read */
    struct pn_connection *next;
    struct pn_connection *previous;
    struct pn_connection *next_due; /* to be flushed, then to be buried */
    struct pn_timer timer;          /* the earliest of the times below, or earlier */
    uint64_t opened_ns;
    uint64_t read_ns;      /* when bytes came last */
    uint64_t idle_ns;      /* since when there is no stream; 0: there is one */
    uint64_t ping_ns;      /* when a PING was sent that is not answered; 0: none is */
    uint64_t leave_at_ns;  /* maximum age; UINT64_MAX: never */
    uint64_t cut_at_ns;    /* what is left of it is cut */
    uint64_t client_ping_ns; /* the client's last PING */
    uint64_t ping_strikes;
    struct pn_glitches glitches;
    size_t read_bytes; /* so many are read at once: see transfer.c */
    enum pn_leaving leaving;
    bool began; /* the client speaks HTTP/2 */
    bool due;   /* in the list of those to be flushed */
    bool writes_wait; /* the socket is full */
    bool broken;
    bool closed;
    struct sockaddr_storage peer;
};

void connection_open(int descriptor, bool tls, const struct sockaddr_storage *peer);
/* There may be something to write: at the end of this round. */
void connection_touch(struct pn_connection *connection);
/* Cuts it. What it had is told to all; its memory goes at the end of the round. */
void connection_close(struct pn_connection *connection);
/* The same at the end of the round, for those in the midst of its streams. */
void connection_break(struct pn_connection *connection);
/* Two steps: the client is told, then what came until it must have heard is finished, then it is closed. */
void connection_leave(struct pn_connection *connection);
void connection_on_ping_answer(struct pn_connection *connection, const uint8_t *opaque);
void connection_on_goaway_sent(struct pn_connection *connection);
void connection_on_ping(struct pn_connection *connection);
/* Headers or data went to the client: it may ask with PINGs. */
void connection_sent(struct pn_connection *connection);
void connection_began(struct pn_connection *connection);
void connection_stream_began(struct pn_connection *connection);
void connection_stream_ended(struct pn_connection *connection);

/* As gRPC writes it: ipv4:127.0.0.1:1234, ipv6:%5B::1%5D:1234, unix:. */
void connection_peer(const struct pn_connection *connection, char *text, size_t room);

struct pn_connection *connections_first(void);
size_t connections_count(void);
void connections_flush(void);
void connections_bury(void);
void connections_leave(void);
void connections_cut(void);
void connections_forget(void);

#endif
