/* What Python decides of single requests. */
#include <string.h>

#include "hot_commands.h"
#include "hot.h"

COMMAND(drain)
{
    (void)arguments;
    if (size)
        return misread;
    uint8_t *bytes = make_result(result, 1);
    if (!bytes)
        return no_memory;
    bytes[0] = completions_read();
    /* What waits here to be written counts as written from now on. */
    tickets_flush();
    links_flush_releases();
    return NULL;
}

/* Hands requests over whose tickets died with a worker: a reason, its pool, then slots and generations. A worker that
 * claims what is another pool's does not know it. */
COMMAND(hand_over)
{
    struct arguments take = arguments_of(arguments, size);
    (void)result;
    enum handed_reason reason = (enum handed_reason)take_u32(&take);
    uint32_t pool = take_u32(&take);
    while (take.at < take.end && !take.short_) {
        uint32_t slot = take_u32(&take), generation = take_u32(&take);
        struct request *request = requests_find(slot, generation);
        if (!take.short_ && request && request->state == REQUEST_OUT && request->lane->pool->id == pool)
            hand_over(request, reason, NULL);
    }
    return take.short_ ? misread : NULL;
}

/* A row for each request whose ticket is out. */
COMMAND(outstanding)
{
    struct row {
        uint32_t slot, generation, lane, pool, level, waits;
        uint64_t accepted_ns, queued_ns;
    } row;
    (void)arguments;
    if (size)
        return misread;
    uint32_t count;
    const struct request *requests = requests_all(&count);
    uint8_t *to = make_result(result, requests_in_use() * sizeof row);
    if (!to)
        return no_memory;
    size_t used = 0;
    for (uint32_t at = 0; at < count; at++) {
        const struct request *request = &requests[at];
        if (request->state != REQUEST_OUT)
            continue;
        row = (struct row){.slot = request->slot,
                           .generation = request->generation,
                           .lane = request->lane->id,
                           .pool = request->lane->pool->id,
                           .level = request->lane->level,
                           .waits = request->rpc != NULL,
                           .accepted_ns = request->accepted_ns,
                           .queued_ns = request->queued_ns};
        memcpy(to + used, &row, sizeof row);
        used += sizeof row;
    }
    result->size = used;
    return NULL;
}

static struct request *take_handed(struct arguments *take)
{
    uint32_t slot = take_u32(take), generation = take_u32(take);
    struct request *request = requests_find(slot, generation);
    return request && request->state == REQUEST_HANDED ? request : NULL;
}

/* The answer to a request that was handed over. */
COMMAND(answer)
{
    struct arguments take = arguments_of(arguments, size);
    (void)result;
    struct request *request = take_handed(&take);
    size_t length = (size_t)(take.end - take.at);
    const uint8_t *message = take_bytes(&take, length);
    if (!is_read(&take) || !request)
        return is_read(&take) ? NULL : misread;
    if (request->rpc) {
        uint8_t *buffer = call_buffer(length);
        if (!buffer)
            return no_memory;
        if (length)
            memcpy(buffer, message, length);
        rpc_answer(request, buffer, length);
    }
    end_request(request);
    return NULL;
}

/* The status of a unary request that was handed over: status, text, and the trailers as call_fail takes them. */
COMMAND(fail)
{
    struct arguments take = arguments_of(arguments, size);
    (void)result;
    struct request *request = take_handed(&take);
    int status = (int)take_u32(&take);
    size_t text_size, metadata_size;
    const uint8_t *text = take_text(&take, &text_size);
    metadata_size = (size_t)(take.end - take.at);
    const uint8_t *metadata = take_bytes(&take, metadata_size);
    if (!is_read(&take) || !request)
        return is_read(&take) ? NULL : misread;
    if (request->rpc && !request->rpc->stream)
        call_fail(request->rpc->call, status, (const char *)text, text_size, metadata_size ? metadata : NULL,
                  metadata_size);
    end_request(request);
    return NULL;
}

/* A request whose client is gone is over for Python, too. */
COMMAND(end)
{
    struct arguments take = arguments_of(arguments, size);
    (void)result;
    struct request *request = take_handed(&take);
    if (!is_read(&take))
        return misread;
    if (request)
        end_request(request);
    return NULL;
}
