/* The inference half, as its own files know it: an RPC with its requests, and what may become of a request. */
#ifndef PN_HOT_H
#define PN_HOT_H

#include "call.h"
#include "clients.h"
#include "grants.h"
#include "records.h"
#include "requests.h"
#include "ways.h"

enum { STREAM_IN_FLIGHT_MAX = 256 };

/* An answer's place in a stream whose answers come in the order of the requests. */
struct turn {
    struct turn *next;
    bool bridged; /* Python answers */
    bool ready;
    uint8_t *message; /* once it is ready; NULL: nothing is sent */
    size_t length;
};

/* An RPC whose messages are offered to us. */
struct rpc {
    struct pn_call *call;
    struct rpc *next_free;
    bool oip, stream;
    bool half_closed, done, waiting;
    uint32_t in_flight; /* requests without an answer, Python's among them */
    struct request *requests;
    struct request *reading;
    struct turn *first_turn, *last_turn; /* of oip streams */
    bool shown; /* the caller shows this */
    struct credential credential;
    struct client *client; /* where these have limits */
};

/* Of the whole front end, as Python said. */
struct hot_settings {
    bool enabled;  /* else everything is Python's */
    bool complete; /* all lanes that there are are known here */
    bool guarded;  /* callers may have some lanes and not others: see grants.h */
    uint32_t frontend;
    uint64_t message_limit; /* bytes of an answer's message */
    uint64_t *pressed_until_ns; /* for Python to read: requests were refused lately */
    int completions;        /* read end of the pipe; -1 before it is known */
    int python_records;     /* write end of the pipe of what is Python's; -1 */
};
extern struct hot_settings hot_settings;

/* Why a request is handed to Python. The numbers stand in frontend/native/recovery.py, too. */
enum handed_reason {
    HANDED_COMPLETED, /* with a completion that is no plain answer; what it names is Python's to give back */
    HANDED_FULL,      /* its queue had no room for the ticket */
    HANDED_LATE,      /* no answer is expected by its deadline */
    HANDED_PUT_BACK,  /* its ticket is lost, or the worker died before the run */
    HANDED_ALONE,     /* the worker died in the run */
    HANDED_POOL_GONE,
};

/* The numbers of events, and of methods in them. */
enum hot_event {
    HOT_EVENT_HANDED = 1,
    HOT_EVENT_CLIENT_GONE,
    HOT_EVENT_LANE_IDLE,
    HOT_EVENT_GROW,
    HOT_EVENT_POOL_IDLE,
    HOT_EVENT_LINE, /* for the log of requests */
};

/* beginning.c */
void rpc_free(struct rpc *rpc);
const struct grant *rpc_grant(const struct rpc *rpc); /* what its caller may have now; NULL: that is not known */
void rpcs_clear(void);

/* streams.c: an answer, or NULL for none, to what the request came by; the request has no rpc any more. */
void rpc_answer(struct request *request, uint8_t *message, size_t length);
void rpc_detach(struct request *request);
void rpc_end_turns(struct rpc *rpc);
struct turn *rpc_new_turn(struct rpc *rpc, bool bridged);
void rpc_progress(struct rpc *rpc);

/* tickets.c */
bool tickets_put(struct request *request); /* false: no memory */
void tickets_flush(void);

/* completions.c */
bool completions_read(void); /* all that has come; false: Python reads too slowly to be told of the rest now */
bool completions_pass_on(void);
void completions_clear(void);

/* handing.c */
void hand_over(struct request *request, enum handed_reason reason, const struct completion *record);
void hand_late(struct request *request, uint64_t excess_ns, uint64_t left_ns);
void end_request(struct request *request); /* whose ticket is accounted for */
void leave_client(struct request *request); /* which has it in flight no more */
void end_pool_if_idle(struct pool *pool); /* one that is gone */
void ask_growth(struct pool *pool, uint64_t size);

/* refusals.c: the call is ended, if no answer is expected by its deadline */
bool refuse_late(struct pn_call *call, struct lane *lane, const struct request *request); /* NULL: is not read yet */
bool refuse_unread(struct pn_call *call, const struct grant *grant); /* of which only the headers have come */
void refusals_clear(void);

/* counting */
struct counts *request_counts(const struct request *request);

#endif
