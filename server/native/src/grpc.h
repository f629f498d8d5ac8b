/* What gRPC writes into HTTP/2's headers. Pure functions. */
#ifndef PN_GRPC_H
#define PN_GRPC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "bytes.h"

enum {
    GRPC_OK = 0,
    GRPC_CANCELLED = 1,
    GRPC_DEADLINE_EXCEEDED = 4,
    GRPC_RESOURCE_EXHAUSTED = 8,
    GRPC_UNIMPLEMENTED = 12,
    GRPC_INTERNAL = 13,
    GRPC_UNAVAILABLE = 14,
};

/* A grpc-timeout in nanoseconds: digits and a unit. UINT64_MAX where there are more than eight, as gRPC's own server has
 * it. False: it is none. */
bool grpc_timeout_ns(const uint8_t *text, size_t size, uint64_t *timeout_ns);
/* application/grpc, with a suffix or parameters. */
bool grpc_is_content_type(const uint8_t *text, size_t size);
/* A status message as grpc-message carries it: percent-encoded. False: no memory. */
bool grpc_encode_text(struct pn_bytes *encoded, const char *text, size_t size);

#endif
