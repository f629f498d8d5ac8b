#ifndef PN_NO_NET_H
#define PN_NO_NET_H

#include "call.h"

struct no_net {
    int64_t buffers; /* that are not freed */
    uint64_t answers, failures, events, sum, now_ns;
    uint32_t handed[2]; /* slot and generation of the last request that was handed over */
    const char *error;  /* of the last command */
};
extern struct no_net no_net;

/* Arguments of a command. */
struct packed {
    uint8_t bytes[4096];
    size_t size;
};
void packed_u32(struct packed *packed, uint32_t value);
void packed_u64(struct packed *packed, uint64_t value);
void packed_bytes(struct packed *packed, const void *bytes, size_t size);
void packed_text(struct packed *packed, const char *text);

void no_net_do(const char *name, const void *arguments, size_t size);

#endif
