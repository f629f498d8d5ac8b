#include "counts.h"

#include <string.h>

static uint64_t bounds[COUNTS_BUCKETS_MAX - 1];
static size_t bounds_count;

const char *counts_set_bounds(const uint64_t *wanted, size_t count)
{
    if (count >= COUNTS_BUCKETS_MAX)
        return "there are too many bounds";
    memcpy(bounds, wanted, count * sizeof *wanted);
    bounds_count = count;
    return NULL;
}

size_t counts_buckets(void) { return bounds_count + 1; }

/* The first bucket whose bound is not below the time. */
static size_t bucket(uint64_t ns)
{
    size_t low = 0, high = bounds_count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (bounds[middle] < ns)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

void counts_answered(struct counts *counts, uint64_t total_ns, uint64_t queue_ns, uint64_t compute_ns, uint32_t rows)
{
    counts->requests[COUNTS_OK]++;
    counts->total_ns[COUNTS_OK] += total_ns;
    counts->rows += rows;
    counts->queue_ns += queue_ns;
    counts->compute_ns += compute_ns;
    counts->durations[bucket(total_ns)]++;
    counts->queues[bucket(queue_ns)]++;
}

void counts_failed(struct counts *counts, enum counts_status status, uint64_t total_ns)
{
    counts->requests[status]++;
    counts->total_ns[status] += total_ns;
}

bool counts_any(const struct counts *counts)
{
    for (unsigned status = 0; status < COUNTS_STATUSES; status++)
        if (counts->requests[status])
            return true;
    return false;
}
