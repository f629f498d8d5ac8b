/* Lines about requests that end here: which of them have one, and what Python needs to write it. */
#ifndef PN_REQUEST_LOG_H
#define PN_REQUEST_LOG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "bytes.h"
#include "counts.h"
#include "records.h"

struct lane;
struct pn_call;
struct request;

/* What Python says of it. */
struct request_log_rule {
    bool on;
    uint64_t share;       /* of all requests: of UINT64_MAX; 0: by rate */
    uint64_t interval_ns; /* between two, on average */
    uint64_t burst_ns;    /* that may be made use of at once */
    const uint64_t *read; /* lines that Python has read, as it writes it */
};
void request_log_set(const struct request_log_rule *rule);
bool request_log_on(void);

/* Python has more lines before it than it should: it had better have the requests themselves. */
bool request_log_is_behind(void);

/* A request was answered, and is of its call still. */
void request_log_answered(const struct request *request, const struct completion *record, uint64_t total_ns);
/* A request ends without an answer. */
void request_log_failed(const struct request *request, const struct pn_call *call, enum counts_status status, uint64_t total_ns);
/* A call ends of which only the headers were read, or those and the name of the lane. */
void request_log_refused(const struct pn_call *call, const struct lane *lane, const struct request *request,
                         uint64_t total_ns);

/* Who calls, and what it says beside its messages: three fields. False: no memory. */
bool request_log_about(const struct pn_call *call, struct pn_bytes *about);

#endif
