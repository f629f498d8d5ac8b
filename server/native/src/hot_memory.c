/* What Python tells of pools, workers and their memory. */
#include <stdlib.h>
#include <string.h>

#include "hot_commands.h"
#include "hot.h"

COMMAND(setup)
{
    struct arguments take = arguments_of(arguments, size);
    (void)result;
    uint64_t bounds[COUNTS_BUCKETS_MAX];
    hot_settings.frontend = take_u32(&take);
    uint32_t first_slot = take_u32(&take), slots = take_u32(&take);
    hot_settings.completions = (int)take_u32(&take);
    hot_settings.python_records = (int)take_u32(&take);
    hot_settings.message_limit = take_u64(&take);
    hot_settings.pressed_until_ns = take_address(&take);
    uint32_t count = take_u32(&take);
    for (uint32_t at = 0; at < count && at < COUNTS_BUCKETS_MAX; at++)
        bounds[at] = take_u64(&take);
    if (!is_read(&take))
        return misread;
    const char *wrong = counts_set_bounds(bounds, count);
    if (!wrong)
        wrong = requests_make(first_slot, slots);
    if (!wrong && !loop_watch_completions(hot_settings.completions))
        wrong = "the completion pipe cannot be watched";
    return wrong;
}

COMMAND(enable)
{
    (void)result;
    if (size != 2)
        return misread;
    hot_settings.enabled = arguments[0] != 0;
    hot_settings.complete = arguments[1] != 0;
    return NULL;
}

COMMAND(pool_add)
{
    struct arguments take = arguments_of(arguments, size);
    (void)result;
    struct pool *pool = calloc(1, sizeof *pool);
    if (!pool)
        return no_memory;
    pool->id = take_u32(&take);
    pool->levels = take_u32(&take);
    pool->frontends = take_u32(&take);
    pool->limit = take_u32(&take);
    pool->out = take_address(&take);
    pool->python_out = take_address(&take);
    for (unsigned level = 0; level < pool->levels && level < LEVELS_MAX; level++)
        pool->queues[level] = (int)take_u32(&take);
    const char *wrong = is_read(&take) && pool->levels <= LEVELS_MAX ? links_add_pool(pool) : misread;
    if (wrong)
        free(pool);
    return wrong;
}

/* Whether several lanes share the pool. */
COMMAND(pool_shared)
{
    struct arguments take = arguments_of(arguments, size);
    (void)result;
    struct pool *pool = links_pool(take_u32(&take));
    uint32_t shared = take_u32(&take);
    if (!is_read(&take))
        return misread;
    if (pool)
        pool->shared = shared;
    return NULL;
}

COMMAND(pool_gone)
{
    struct arguments take = arguments_of(arguments, size);
    (void)result;
    struct pool *pool = links_pool(take_u32(&take));
    if (!is_read(&take))
        return misread;
    if (!pool)
        return NULL;
    pool->gone = true;
    pool->held++; /* until we are through with it here */
    tickets_flush();
    uint32_t count;
    struct request *requests = requests_all(&count);
    for (uint32_t at = 0; at < count; at++)
        if (requests[at].state == REQUEST_OUT && requests[at].lane->pool == pool)
            hand_over(&requests[at], HANDED_POOL_GONE, NULL);
    pool->held--;
    end_pool_if_idle(pool);
    return NULL;
}

COMMAND(segment_add)
{
    struct arguments take = arguments_of(arguments, size);
    (void)result;
    struct pool *pool = links_pool(take_u32(&take));
    uint32_t number = take_u32(&take), blocks = take_u32(&take);
    uint64_t block_bytes = take_u64(&take);
    uint8_t *base = take_address(&take);
    if (!is_read(&take))
        return misread;
    /* It may have gone while the segment was made. */
    return pool ? arena_add(&pool->arena, number, base, block_bytes, blocks) : NULL;
}

COMMAND(segments_retire)
{
    struct arguments take = arguments_of(arguments, size);
    (void)result;
    struct pool *pool = links_pool(take_u32(&take));
    while (pool && take.at < take.end && !take.short_)
        arena_retire(&pool->arena, take_u32(&take));
    return take.short_ ? misread : NULL;
}

/* Gives the numbers of the segments that nothing points into any more. */
COMMAND(segments_gone)
{
    struct arguments take = arguments_of(arguments, size);
    struct pool *pool = links_pool(take_u32(&take));
    if (!is_read(&take))
        return misread;
    size_t count = 0;
    for (struct segment *segment = pool ? pool->arena.segments : NULL; segment; segment = segment->next)
        count += segment->retired;
    uint8_t *bytes = make_result(result, count * sizeof(uint32_t));
    if (!bytes)
        return no_memory;
    uint32_t number;
    for (result->size = 0; pool && arena_remove_retired(&pool->arena, &number); result->size += sizeof number)
        memcpy(bytes + result->size, &number, sizeof number);
    return NULL;
}

/* Gives (number, blocks in use) of each segment that gives blocks, and peaks are counted anew if that is asked for. */
COMMAND(arena)
{
    struct row {
        uint32_t number, used, peak, reserved;
    } row = {0};
    struct arguments take = arguments_of(arguments, size);
    struct pool *pool = links_pool(take_u32(&take));
    bool forget = take_u32(&take) != 0;
    if (!is_read(&take))
        return misread;
    size_t count = 0;
    for (struct segment *segment = pool ? pool->arena.segments : NULL; segment; segment = segment->next)
        count += !segment->retired;
    uint8_t *to = make_result(result, count * sizeof row);
    if (!to)
        return no_memory;
    for (struct segment *segment = pool ? pool->arena.segments : NULL; segment; segment = segment->next) {
        if (segment->retired)
            continue;
        row.number = segment->number;
        row.used = segment->blocks - segment->free_count;
        row.peak = arena_peak(&pool->arena, segment->block_bytes);
        memcpy(to, &row, sizeof row);
        to += sizeof row;
    }
    if (pool && forget)
        arena_forget_peaks(&pool->arena);
    return NULL;
}

COMMAND(grown)
{
    struct arguments take = arguments_of(arguments, size);
    (void)result;
    struct pool *pool = links_pool(take_u32(&take));
    if (!is_read(&take))
        return misread;
    if (pool)
        pool->growth_asked = false;
    return NULL;
}

COMMAND(worker_add)
{
    struct arguments take = arguments_of(arguments, size);
    (void)result;
    uint32_t id = take_u32(&take), pool = take_u32(&take);
    int releases = (int)take_u32(&take);
    const uint8_t *claims = take_address(&take);
    return is_read(&take) ? links_add_worker(id, pool, releases, claims, loop_now_ns()) : misread;
}

COMMAND(worker_gone)
{
    struct arguments take = arguments_of(arguments, size);
    (void)result;
    uint32_t id = take_u32(&take);
    if (!is_read(&take))
        return misread;
    links_remove_worker(id, loop_now_ns());
    return NULL;
}

COMMAND(response_add)
{
    struct arguments take = arguments_of(arguments, size);
    (void)result;
    uint32_t worker = take_u32(&take), number = take_u32(&take), blocks = take_u32(&take);
    uint64_t block_bytes = take_u64(&take);
    const uint8_t *base = take_address(&take);
    return is_read(&take) ? links_add_response_segment(worker, number, base, block_bytes, blocks) : misread;
}

COMMAND(response_remove)
{
    struct arguments take = arguments_of(arguments, size);
    (void)result;
    uint32_t worker = take_u32(&take), number = take_u32(&take);
    if (!is_read(&take))
        return misread;
    links_remove_response_segment(worker, number);
    return NULL;
}
