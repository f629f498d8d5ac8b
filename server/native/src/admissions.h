/* The shapes of requests that Python has checked: what a request looks like that is right, and where its tensors go. */
#ifndef PN_ADMISSIONS_H
#define PN_ADMISSIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "pb_read.h"

enum { ADMISSION_BUCKETS = 64, ADMISSIONS_MAX = 4096 };

struct admission_input {
    const uint8_t *name;
    size_t name_size;
    uint8_t dtype, rank;
    int64_t shape[PB_RANK_MAX];
    uint64_t offset, nbytes; /* in the block */
};

struct admission {
    struct admission *next;
    unsigned uses;       /* requests that are read by it */
    bool forgotten;      /* freed after its last use */
    const uint8_t *head; /* of the block: header and descriptors */
    size_t head_size;
    uint64_t bytes; /* of the block that are in use */
    uint32_t rows;
    uint8_t flags; /* of the ticket */
    uint64_t shape_key;
    uint64_t tensors_bytes;
    unsigned inputs_count; /* in the order in which clients send them */
    struct admission_input inputs[PB_INPUTS_MAX];
    uint8_t text[]; /* what the pointers above point into */
};

struct admissions {
    struct admission *buckets[ADMISSION_BUCKETS];
    struct admission *last; /* that was found */
    unsigned count;
};

/* Adds a malloc'ed admission, which is theirs from then on. False: there are too many; it is the caller's still. */
bool admissions_add(struct admissions *known, struct admission *admission);

/* What the request that is read may be: of predictd.v1 by its first input alone, for more is not known when the data of
 * that come; of the Open Inference Protocol by all inputs. NULL: nothing known. */
struct admission *admissions_find(struct admissions *known, const struct pb_reader *reader);

/* Whether an input of the request is what the admission has in its place. */
bool admission_has(const struct admission *admission, const struct pb_reader *reader, unsigned input);

void admission_release(struct admission *admission);
void admissions_clear(struct admissions *known);

#endif
