/* Which lane answers a request: what Python said of it. A lane is here only while nothing about its requests needs
 * Python's judgement. */
#ifndef PN_ROUTES_H
#define PN_ROUTES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "admissions.h"
#include "counts.h"
#include "expectation.h"
#include "links.h"
#include "pb_write.h"

struct lane {
    struct lane *next;
    uint32_t id;
    struct pool *pool;   /* NULL once it is gone */
    bool batches;        /* the first dimension is the batch */
    bool needs_deadline; /* requests without one have a default one, which is Python's affair */
    bool dropped;        /* gets no more requests */
    unsigned level;      /* of its queue */
    uint64_t version;
    uint64_t answer_limit; /* bytes of all outputs of an answer */
    struct pb_bytes model, version_text;
    unsigned outputs_count;
    struct pb_bytes outputs[PB_OUTPUTS_MAX];
    struct admissions admissions;
    struct expectation expectation;
    uint32_t outstanding; /* requests from their first tensor to the end of their slot */
    struct counts counts[2]; /* predictd.v1, oip */
    uint8_t text[];          /* what the pointers above point into */
};

/* Takes a malloc'ed lane. Gives a text of what is wrong, or NULL. */
const char *routes_add_lane(struct lane *lane);
struct lane *routes_lane(uint32_t id);
struct lane *routes_lanes(void);

/* Forgets a lane once nothing of it is outstanding. */
void routes_forget_lane(struct lane *lane);

struct route {
    uint64_t version; /* 0: named by none */
    uint32_t lane;
};

/* What the versions of a model mean from now on; with no routes it is forgotten. */
const char *routes_set_model(const uint8_t *name, size_t name_size, const struct route *routes, size_t count);

/* The lane of a request, NULL where Python is to look for it. */
struct lane *routes_find(const uint8_t *name, size_t name_size, uint64_t version);

void routes_clear(void);

#endif
