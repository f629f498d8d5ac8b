/* The requests that are in hand here. Each has a slot of the front end's numbers, of which Python has the lower ones; a
 * slot's generation goes up each time it is used, so a late completion finds nobody. */
#ifndef PN_REQUESTS_H
#define PN_REQUESTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "pb_read.h"
#include "routes.h"
#include "ways.h"

struct client;
struct rpc;
struct turn;

enum request_state {
    REQUEST_FREE,
    REQUEST_READING, /* its message comes */
    REQUEST_OUT,     /* its ticket is written, or about to be */
    REQUEST_HANDED,  /* to Python, which will end it */
};

struct request {
    enum request_state state;
    uint32_t slot, generation;
    struct rpc *rpc; /* whose client waits; NULL once nobody does */
    struct request *next, *previous; /* of the rpc */
    struct turn *turn;               /* in a stream whose answers are in order */
    struct lane *lane;               /* since its first tensor */
    struct admission *admission;     /* while it is read */
    struct client *client;           /* where it is counted, while it is */
    enum way why;                    /* it becomes Python's, if it does while it is read */
    bool has_block, named_version, refused;
    struct block block;
    uint64_t accepted_ns, queued_ns;
    uint64_t deadline_ns; /* 0: none */
    uint32_t ahead;       /* requests that were before it when it came */
    uint32_t rows;
    unsigned wanted_count;
    uint8_t wanted[PB_OUTPUTS_MAX]; /* indices of the outputs */
    struct pb_reader reader;
};

/* Makes the requests of the slots from `first` on. Gives a text of what is wrong, or NULL. */
const char *requests_make(uint32_t first, uint32_t count);
void requests_clear(void);

/* A free one, READING from then on. NULL: there are as many as may be together with the `others` that Python has, or as
 * many are being read as may be. */
struct request *requests_take(uint32_t others);

/* The request that a record speaks of; NULL when it is over, or no slot of these. */
struct request *requests_find(uint32_t slot, uint32_t generation);

/* It has been read, and is in this state from now on. */
void requests_read(struct request *request, enum request_state state);

/* Its slot is free. */
void requests_end(struct request *request);

/* All slots, to be looked through. */
struct request *requests_all(uint32_t *count);
uint32_t requests_in_use(void);

#endif
