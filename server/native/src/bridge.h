/* Between the loop's thread and Python: a queue of events one way, of commands the other. No Python in here. */
#ifndef PN_BRIDGE_H
#define PN_BRIDGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "bytes.h"
#include "call.h"

struct pn_message;
struct pn_stream;

enum pn_event_kind {
    EVENT_BEGAN = 1,  /* id, number: deadline, one: path, other: metadata, third: peer, fourth: identity */
    EVENT_MESSAGE,    /* id, number: 1 where it is compressed, one */
    EVENT_HALF_CLOSED,/* id */
    EVENT_WRITTEN,    /* id, number: the token of the message */
    EVENT_GONE,       /* id, the last of it */
    EVENT_HOT,        /* number: of hot's own, one */
    EVENT_EMPTY,      /* nobody is connected any more, and nobody can be */
};

struct pn_event {
    struct pn_event *next;
    enum pn_event_kind kind;
    uint64_t id;
    uint64_t number;
    struct pn_bytes one;
    struct pn_bytes other;
    struct pn_bytes third;
    struct pn_bytes fourth;
};

enum pn_command_kind {
    COMMAND_READ = 1,      /* id, number: messages that were read, other_number: Python waits for one */
    COMMAND_HEADERS,       /* id, one: fields */
    COMMAND_MESSAGE,       /* id, message */
    COMMAND_ANSWER,        /* id, message: the only one, with status OK behind it */
    COMMAND_STATUS,        /* id, number, one: text, other: fields */
    COMMAND_LISTEN,        /* number: descriptor, other_number: with TLS; result: errno */
    COMMAND_STOP_LISTENING,
    COMMAND_LEAVE,         /* tells all clients to go */
    COMMAND_CLOSE_STREAMS, /* one: text */
    COMMAND_CUT,           /* closes all connections */
    COMMAND_END,
    COMMAND_HOT,           /* one: name, other: arguments; answer and error */
    COMMAND_TLS,           /* pointer; see tls.h */
    COMMAND_COUNT,         /* result: open connections */
};

struct pn_command {
    struct pn_command *next;
    enum pn_command_kind kind;
    uint64_t id;
    uint64_t number;
    uint64_t other_number;
    struct pn_bytes one;
    struct pn_bytes other;
    struct pn_message *message;
    void *pointer;
    /* Of one that somebody waits for, who owns it. */
    bool waited_for;
    bool done;
    uint64_t result;
    struct hot_result answer;
    const char *error;
};

/* Of the loop's thread ------------------------------------------------------------------------------------------- */

const char *bridge_open(void);
/* The loop has ended: commands are answered with that. */
void bridge_stop(void);
void bridge_close(void);
void bridge_run_commands(void);
/* Wakes Python if there are events. */
void bridge_notify(void);
/* Python has not looked yet at as many calls as may wait for it: it gets no more of them for now. */
bool bridge_is_full(void);
/* A new call, and the id by which Python names it; 0: no memory. */
uint64_t bridge_begin(struct pn_stream *stream);
/* Takes the bytes. False: no memory. */
bool bridge_message(uint64_t id, struct pn_bytes *message, bool compressed);
void bridge_half_closed(uint64_t id);
void bridge_written(uint64_t id, uint64_t token);
void bridge_gone(uint64_t id);
void bridge_empty(void);

/* Of Python's thread --------------------------------------------------------------------------------------------- */

/* Readable when there are events. */
int bridge_event_descriptor(void);
/* The next events, in order; to be freed by event_free. A few at once, so that Python's loop has time for others; NULL:
 * there are none. */
struct pn_event *bridge_take_events(void);
void event_free(struct pn_event *event);
/* NULL: no memory. */
struct pn_command *command_new(enum pn_command_kind kind, uint64_t id);
void command_free(struct pn_command *command);
/* Hands it over. */
void bridge_submit(struct pn_command *command);
/* Hands it over and waits until it was done; without the GIL. The caller frees it. */
void bridge_do(struct pn_command *command);

#endif
