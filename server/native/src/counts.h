/* What observe/recorder.py counts, for the requests that Python does not see: collected by it now and then. */
#ifndef PN_COUNTS_H
#define PN_COUNTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { COUNTS_BUCKETS_MAX = 64 };

/* The ends that Python does not see. */
enum counts_status { COUNTS_OK, COUNTS_CANCELLED, COUNTS_DEADLINE_EXCEEDED, COUNTS_RESOURCE_EXHAUSTED, COUNTS_STATUSES };

struct counts {
    uint64_t requests[COUNTS_STATUSES], total_ns[COUNTS_STATUSES];
    /* Of those that were answered. */
    uint64_t rows, queue_ns, compute_ns;
    uint64_t durations[COUNTS_BUCKETS_MAX], queues[COUNTS_BUCKETS_MAX];
};

/* The bounds of the buckets, ascending; there is one bucket more than bounds. */
const char *counts_set_bounds(const uint64_t *bounds, size_t count);
size_t counts_buckets(void);

void counts_answered(struct counts *counts, uint64_t total_ns, uint64_t queue_ns, uint64_t compute_ns, uint32_t rows);
void counts_failed(struct counts *counts, enum counts_status status, uint64_t total_ns);
bool counts_any(const struct counts *counts);

#endif
