/* What clients may do. Written once, before the loop begins. Of the times, 0 stands for no bound. */
#ifndef PN_BOUNDS_H
#define PN_BOUNDS_H

#include <stdint.h>

struct pn_limits {
    uint64_t message_bytes;
    uint64_t metadata_bytes;
    uint64_t unread_bytes; /* of the answers to one connection */
    uint64_t streams;     /* of a connection, at once */
    uint64_t connections; /* at once; more are closed */
    uint64_t max_age_ns;
    uint64_t max_age_grace_ns;
    uint64_t max_idle_ns;
    uint64_t handshake_timeout_ns;
    uint64_t keepalive_time_ns;
    uint64_t keepalive_timeout_ns;
    uint64_t min_ping_interval_ns;
    uint64_t max_ping_strikes;
};

extern struct pn_limits limits;

#endif
