/* Requests that come to no plain end are handed to Python, which has all the rules and all the words for them. */
#include <string.h>

#include "bytes.h"
#include "grpc.h"
#include "hot.h"
#include "request_log.h"

/* Before the bytes of the message. The Python side is in frontend/native/recovery.py. */
struct handed_event {
    uint32_t slot, generation, lane;
    uint8_t method, reason, reserved[2];
    uint64_t accepted_ns, deadline_ns;
    uint64_t excess_ns, left_ns;
    struct completion record;
    uint64_t about_size; /* of what is told of the call, between this and the message, where the log needs it */
};
_Static_assert(sizeof(struct handed_event) == 120, "as Python reads it");

struct counts *request_counts(const struct request *request)
{
    return &request->lane->counts[request->reader.oip ? 1 : 0];
}

void leave_client(struct request *request)
{
    if (request->client)
        client_leave(request->client);
    request->client = NULL;
}

static void leave_queue(struct request *request)
{
    if (request->state == REQUEST_OUT) {
        uint32_t *out = &request->lane->pool->out[request->lane->level];
        __atomic_store_n(out, *out - 1, __ATOMIC_RELAXED);
    }
}

static void free_block(struct request *request)
{
    if (!request->has_block)
        return;
    struct pool *pool = request->lane->pool;
    arena_free(&pool->arena, request->block);
    request->has_block = false;
    pool->held--;
    end_pool_if_idle(pool);
}

void end_pool_if_idle(struct pool *pool)
{
    if (!pool->gone || pool->held)
        return;
    for (struct lane *lane = routes_lanes(); lane; lane = lane->next)
        if (lane->pool == pool)
            lane->pool = NULL;
    bridge_hot_event(HOT_EVENT_POOL_IDLE, (const uint8_t *)&pool->id, sizeof pool->id);
    links_remove_pool(pool->id);
}

void end_request(struct request *request)
{
    struct lane *lane = request->lane;
    leave_queue(request);
    leave_client(request);
    rpc_detach(request);
    free_block(request);
    requests_end(request);
    if (!lane)
        return;
    request->lane = NULL;
    if (--lane->outstanding || !lane->dropped)
        return;
    bridge_hot_event(HOT_EVENT_LANE_IDLE, (const uint8_t *)&lane->id, sizeof lane->id);
}

static bool tell(const struct request *request, struct handed_event *event)
{
    size_t length = request->reader.length;
    struct pn_bytes about = {0}, bytes = {0};
    bool told = !request_log_on() || request_log_about(request->rpc->call, &about);
    event->about_size = about.size;
    told = told && bytes_append(&bytes, event, sizeof *event) && bytes_append(&bytes, about.data, about.size) &&
           bytes_reserve(&bytes, length) && pb_replay(&request->reader, bytes.data + bytes.size) == length &&
           bridge_hot_event(HOT_EVENT_HANDED, bytes.data, bytes.size + length);
    bytes_free(&about);
    bytes_free(&bytes);
    return told;
}

static void give_up(struct request *request)
{
    static const char text[] = "no memory is left in the front end";
    struct rpc *rpc = request->rpc;
    ways_count(WAY_HOT);
    if (rpc->stream)
        rpc_answer(request, NULL, 0);
    else
        call_fail(rpc->call, GRPC_INTERNAL, text, sizeof text - 1, NULL, 0);
    end_request(request);
}

static void hand(struct request *request, struct handed_event *event, const struct completion *record)
{
    if (!request->rpc) {
        end_request(request);
        return;
    }
    event->slot = request->slot;
    event->generation = request->generation;
    event->lane = request->lane->id;
    event->method = (uint8_t)request->rpc->call->method;
    event->accepted_ns = request->accepted_ns;
    event->deadline_ns = request->deadline_ns;
    if (record)
        event->record = *record;
    if (!tell(request, event)) {
        give_up(request);
        return;
    }
    ways_count(WAY_HANDED);
    leave_queue(request);
    free_block(request);
    request->state = REQUEST_HANDED;
}

void hand_over(struct request *request, enum handed_reason reason, const struct completion *record)
{
    struct handed_event event = {.reason = (uint8_t)reason};
    hand(request, &event, record);
}

void hand_late(struct request *request, uint64_t excess_ns, uint64_t left_ns)
{
    struct handed_event event = {.reason = HANDED_LATE, .excess_ns = excess_ns, .left_ns = left_ns};
    hand(request, &event, NULL);
}

void ask_growth(struct pool *pool, uint64_t size)
{
    struct {
        uint32_t pool, reserved;
        uint64_t size;
    } event = {pool->id, 0, size};
    if (!pool->growth_asked)
        pool->growth_asked = bridge_hot_event(HOT_EVENT_GROW, (const uint8_t *)&event, sizeof event);
}
