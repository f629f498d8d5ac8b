/* Tickets on their way into queues: those of one round leave together, in as few writes as there can be. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "hot.h"

static struct ticket ticket_of(const struct request *request)
{
    const struct admission *admission = request->admission;
    return (struct ticket){
        .frontend = hot_settings.frontend,
        .segment = request->block.segment->number,
        .lane = request->lane->id,
        .rows = admission->rows,
        .shape_key = admission->shape_key,
        .bytes = (uint32_t)admission->bytes,
        .priority = (uint8_t)request->lane->level,
        .flags = admission->flags,
        .slot = request->slot,
        .generation = request->generation,
        .block = request->block.number,
        .enqueued_ns = request->accepted_ns,
        .deadline_ns = request->deadline_ns ? request->deadline_ns : NO_DEADLINE_NS,
    };
}

/* Writes `count` tickets from `first` on. 1: done; 0: there is no room for so many; -1: nobody will ever read them. */
static int write_tickets(int queue, const struct ticket *first, unsigned count)
{
    ssize_t written;
    do
        written = write(queue, first, count * sizeof *first);
    while (written < 0 && errno == EINTR);
    if (written >= 0)
        return 1;
    return errno == EAGAIN ? 0 : -1;
}

static void flush_level(struct pool *pool, unsigned level)
{
    struct ticket_batch *batch = pool->batches[level - 1];
    unsigned at = 0;
    while (at < batch->count) {
        unsigned count = batch->count - at;
        int written = write_tickets(pool->queues[level - 1], batch->tickets + at, count);
        if (!written && count > 1)
            written = write_tickets(pool->queues[level - 1], batch->tickets + at, count = 1);
        if (!written)
            break;
        /* Also for what nobody reads: Python is about to be told that the pool is gone, and says so. */
        at += count;
    }
    unsigned refused = batch->count - at;
    batch->count = 0;
    for (; refused; refused--, at++)
        hand_over(batch->requests[at], HANDED_FULL, NULL);
}

bool tickets_put(struct request *request)
{
    struct pool *pool = request->lane->pool;
    unsigned level = request->lane->level;
    struct ticket_batch *batch = pool->batches[level - 1];
    if (!batch) {
        batch = calloc(1, sizeof *batch);
        if (!batch)
            return false;
        pool->batches[level - 1] = batch;
    }
    if (batch->count == RECORDS_PER_WRITE)
        flush_level(pool, level);
    batch->tickets[batch->count] = ticket_of(request);
    batch->requests[batch->count++] = request;
    pool->dirty = true;
    return true;
}

void tickets_flush(void)
{
    for (struct pool *pool = links_pools(); pool; pool = pool->next) {
        if (!pool->dirty)
            continue;
        pool->dirty = false;
        for (unsigned level = 1; level <= pool->levels; level++)
            if (pool->batches[level - 1])
                flush_level(pool, level);
    }
}
