/* What the two halves of the front end ask of each other: the network half (net: loop, connections, streams, bridge)
 * and the inference half (hot: messages, memory, tickets, completions). All of it runs on the loop's thread. */
#ifndef PN_CALL_H
#define PN_CALL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum pn_method { PN_OTHER, PN_PREDICT, PN_PREDICT_STREAM, PN_MODEL_INFER, PN_MODEL_STREAM_INFER };

enum pn_verdict {
    PN_MORE,   /* go on feeding */
    PN_TAKEN,  /* the message is hot's: an answer comes by call_answer or call_fail */
    PN_BRIDGE, /* the message, or of hot_begin the call, is Python's */
    PN_WAIT,   /* not now: nothing was taken, ask again after call_resume */
    PN_BOTH,   /* of hot_begin of a stream: as PN_MORE, and Python hears of the call now, to look at who calls */
    PN_REFUSE, /* call_fail was called: nothing more of this call is wanted */
};

struct pn_connection;

/* One RPC. Owned by stream.c; valid from hot_begin to the return of hot_gone. */
struct pn_call {
    enum pn_method method;
    uint64_t accepted_ns; /* CLOCK_MONOTONIC, when its headers were there */
    uint64_t deadline_ns; /* CLOCK_MONOTONIC, 0 for none */
    struct pn_connection *connection;
    void *hot; /* hot's own, NULL at hot_begin */
};

/* net -> hot ------------------------------------------------------------------------------------------------------ */

/* The headers are there. PN_MORE, PN_BOTH: messages are offered to hot; PN_BRIDGE: the whole call is Python's, and hot hears no
 * more of it, not even hot_gone; PN_REFUSE. Called for the four methods only, not for PN_OTHER. */
enum pn_verdict hot_begin(struct pn_call *call);

/* A message begins, `length` bytes long, which is within the limit; of a compressed one that is what it was inflated to, and
 * all of it is fed at once. PN_MORE, PN_BRIDGE, PN_WAIT, PN_REFUSE. `length` may be 0. Window for the whole of a message that hot takes
 * is granted to the client at once. */
enum pn_verdict hot_message_begin(struct pn_call *call, size_t length);

/* A message is Python's without a question: it is compressed and cannot be inflated here, or much else is uploaded. */
void hot_pass(struct pn_call *call, bool compressed);

/* More bytes of the message, in order, as they come. PN_MORE, PN_BRIDGE (of this message), PN_REFUSE. */
enum pn_verdict hot_feed(struct pn_call *call, const uint8_t *bytes, size_t size);

/* All bytes were fed. PN_TAKEN, PN_BRIDGE, PN_REFUSE. */
enum pn_verdict hot_message_end(struct pn_call *call);

/* Directly after PN_BRIDGE of hot_feed or hot_message_end, or at any time between two feeds: writes all `fed` bytes of
 * the message, those of this feed included, to `to`. Afterwards hot has nothing of this message any more. */
void hot_replay(struct pn_call *call, uint8_t *to, size_t fed);

/* At any time between two feeds: the rest of the message does not come, and nobody answers it. Or, directly after PN_BRIDGE,
 * instead of hot_replay: Python has the message from elsewhere. */
void hot_drop(struct pn_call *call);

/* The client sends no more messages. For a stream hot calls call_done when it owes nothing any more, now or later. */
void hot_half_closed(struct pn_call *call);

/* Streams: Python answers a message that it got, in the order in which it got them. false: net sends it at once.
 * true: hot has taken the buffer and sends it by call_answer in its turn. */
bool hot_bridged_answer(struct pn_call *call, uint8_t *message, size_t length);

/* The call is over, whatever the reason (answered, failed, cancelled by the client, deadline, connection lost), or was
 * never begun to the end. The last that hot hears of it; the pointer dies here. What is out stays out, for nobody. */
void hot_gone(struct pn_call *call);

/* End of an epoll round: write tickets, before connections are flushed; and after that releases, which nobody waits for. */
void hot_round(void);
void hot_round_over(void);

/* The descriptor of hot_completions_fd is readable. */
void hot_completions(void);

/* Start (before any call) and end (no call is left), on the loop's thread. */
void hot_start(void);
void hot_stop(void);

/* Python -> hot: bridge.c finds these by name and calls them on the loop's thread. `arguments` are bytes that Python
 * packed. What is to be given back goes into `result` (malloc'ed, freed by the caller); at once, no waiting. Gives NULL, or
 * a static text of what is wrong, which Python raises as ValueError. */
struct hot_result {
    uint8_t *bytes;
    size_t size;
};
struct hot_command {
    const char *name;
    const char *(*run)(const uint8_t *arguments, size_t size, struct hot_result *result);
};
extern const struct hot_command hot_commands[]; /* ends with a name of NULL */

/* hot -> net ------------------------------------------------------------------------------------------------------ */

/* A buffer for a message of up to `size` bytes; there is room for gRPC's prefix before it. NULL: no memory. */
uint8_t *call_buffer(size_t size);
void call_buffer_free(uint8_t *message); /* one that is not sent */

/* Sends a message of `length` bytes in a buffer of call_buffer, which is net's from then on. Ends a unary call with OK.
 * Never calls hot back before it returns. */
void call_answer(struct pn_call *call, uint8_t *message, size_t length);

/* Ends the call with a status. `metadata`: further trailers, as in bridge.h: pairs of (u32 size, bytes), or NULL. hot_gone
 * comes later, never before this returns. */
void call_fail(struct pn_call *call, int status, const char *text, size_t text_size, const uint8_t *metadata,
               size_t metadata_size);

/* Streams: hot_half_closed was called, and all messages that hot took are answered. */
void call_done(struct pn_call *call);

/* After PN_WAIT: ask hot_message_begin again, at the end of this round. */
void call_resume(struct pn_call *call);

/* The value of a header of the call, NULL without it. */
const char *call_metadata(const struct pn_call *call, const char *name, size_t *size);

/* All headers but gRPC's and HTTP's own: fields, names and values by turns, as in bytes.h. */
const uint8_t *call_fields(const struct pn_call *call, size_t *size);

/* What the client's certificate says, as fields: see identity.h. A size of 0 without one, and without memory. */
const uint8_t *call_identity(const struct pn_call *call, size_t *size);

/* The client, as gRPC writes it. */
enum { PN_PEER_BYTES = 80 };
void call_peer(const struct pn_call *call, char *text, size_t room);

/* Have hot_completions called whenever this descriptor is readable. Once, by a command. Gives false when epoll refuses. */
bool loop_watch_completions(int descriptor);

/* Have hot_timer called at about this time (CLOCK_MONOTONIC); a later call replaces it; 0: not at all. */
void loop_wake_hot_at(uint64_t at_ns);
void hot_timer(void);

/* CLOCK_MONOTONIC at the start of this round: good enough for most. */
uint64_t loop_now_ns(void);

/* hot -> Python: an event with a number and bytes of hot's own making, copied. Reaches `on_hot(kind, bytes)` in the order
 * of all events. False: no memory. */
bool bridge_hot_event(uint32_t kind, const uint8_t *bytes, size_t size);

#endif
