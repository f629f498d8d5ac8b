/* The inference half: from the bytes of a message to its ticket. */
#include "hot.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

/* Releases or records that found a full pipe are tried again so soon. */
static const uint64_t again_ns = 5000000;

struct hot_settings hot_settings = {.completions = -1, .python_records = -1};

static struct rpc *free_rpcs;

static struct rpc *new_rpc(struct pn_call *call)
{
    struct rpc *rpc = free_rpcs;
    if (rpc)
        free_rpcs = rpc->next_free;
    else if (!(rpc = malloc(sizeof *rpc)))
        return NULL;
    *rpc = (struct rpc){.call = call};
    rpc->oip = call->method == PN_MODEL_INFER || call->method == PN_MODEL_STREAM_INFER;
    rpc->stream = call->method == PN_PREDICT_STREAM || call->method == PN_MODEL_STREAM_INFER;
    return rpc;
}

enum pn_verdict hot_begin(struct pn_call *call)
{
    size_t size;
    const char *encoding = call_metadata(call, "grpc-encoding", &size);
    bool plain = !encoding || (size == strlen("identity") && memcmp(encoding, "identity", size) == 0);
    /* Messages that may be compressed are Python's, and then all of the call's are, so that their order is one's. */
    if (!hot_settings.enabled || !plain)
        return PN_BRIDGE;
    bool unary = call->method == PN_PREDICT || call->method == PN_MODEL_INFER;
    if (unary && refuse_unread(call))
        return PN_REFUSE;
    if (!(call->hot = new_rpc(call)))
        return PN_BRIDGE;
    return PN_MORE;
}

/* The message is Python's from its first byte on, or from here on. */
static enum pn_verdict bridge(struct rpc *rpc, struct turn *turn)
{
    if (turn)
        turn->bridged = true;
    else if (rpc->stream && rpc->oip)
        rpc_new_turn(rpc, true);
    return PN_BRIDGE;
}

enum pn_verdict hot_message_begin(struct pn_call *call, size_t length)
{
    struct rpc *rpc = call->hot;
    if (rpc->stream && rpc->in_flight >= STREAM_IN_FLIGHT_MAX) {
        rpc->waiting = true;
        return PN_WAIT;
    }
    bool first = rpc->stream || !rpc->in_flight;
    bool ours = hot_settings.enabled && length && first;
    struct request *request = ours ? requests_take(links_python_out(loop_now_ns())) : NULL;
    rpc->in_flight++;
    if (!request)
        return bridge(rpc, NULL);
    request->rpc = rpc;
    request->turn = rpc->stream && rpc->oip ? rpc_new_turn(rpc, false) : NULL;
    request->next = rpc->requests;
    if (rpc->requests)
        rpc->requests->previous = request;
    rpc->requests = rpc->reading = request;
    request->accepted_ns = rpc->stream ? loop_now_ns() : call->accepted_ns;
    request->deadline_ns = call->deadline_ns;
    pb_begin(&request->reader, rpc->oip, length);
    return PN_MORE;
}

/* The number that a version is written as; 0 for none, UINT64_MAX for what is Python's to read. */
static uint64_t named_version(const struct pb_reader *reader)
{
    enum { DIGITS_MAX = 18 };
    if (!reader->has_version)
        return 0;
    if (!reader->oip)
        return reader->version && reader->version <= INT64_MAX ? reader->version : UINT64_MAX;
    const uint8_t *text = reader->head + reader->version_text.at;
    size_t size = reader->version_text.size;
    if (!size)
        return 0;
    uint64_t number = 0;
    for (size_t at = 0; at < size; at++) {
        if (text[at] < '0' || text[at] > '9' || size > DIGITS_MAX || text[0] == '0')
            return UINT64_MAX;
        number = 10 * number + (uint64_t)(text[at] - '0');
    }
    return number;
}

/* Whether a lane is far from its share of a queue, whoever else asks: nearer to it Python is to judge (room.py). */
static bool has_room(struct pool *pool, unsigned level)
{
    return !pool->shared || 2 * links_ahead(pool, level, loop_now_ns()) < pool->limit;
}

/* The first tensor comes: which lane, which shape, which block? False: Python is to see this. */
static bool settle(struct request *request)
{
    const struct pb_reader *reader = &request->reader;
    if (!reader->has_model)
        return false;
    request->named_version = reader->has_version;
    struct lane *lane = routes_find(reader->head + reader->model.at, reader->model.size, named_version(reader));
    if (!lane || lane->dropped || !lane->pool || lane->pool->gone || (lane->needs_deadline && !request->deadline_ns) ||
        !has_room(lane->pool, lane->level))
        return false;
    if (!request->rpc->stream && refuse_late(request->rpc->call, lane)) {
        request->refused = true;
        return false;
    }
    struct admission *admission = admissions_find(&lane->admissions, reader);
    if (!admission)
        return false;
    if (!arena_take(&lane->pool->arena, admission->bytes, &request->block)) {
        ask_growth(lane->pool, admission->bytes);
        return false;
    }
    request->has_block = true;
    lane->pool->held++;
    request->lane = lane;
    request->admission = admission;
    lane->outstanding++;
    admission->uses++;
    uint8_t *block = arena_block(request->block);
    memcpy(block, admission->head, admission->head_size);
    memcpy(block + offsetof(struct request_header, generation), &request->generation, sizeof request->generation);
    return true;
}

/* Where the next tensor goes, NULL where Python is to see this. */
static uint8_t *place(struct request *request)
{
    const struct pb_reader *reader = &request->reader;
    unsigned number = reader->holes_count;
    if (!number && !settle(request))
        return NULL;
    const struct admission *admission = request->admission;
    if (!admission_has(admission, reader, number) || reader->next.size != admission->inputs[number].nbytes)
        return NULL;
    return arena_block(request->block) + admission->inputs[number].offset;
}

enum pn_verdict hot_feed(struct pn_call *call, const uint8_t *bytes, size_t size)
{
    struct rpc *rpc = call->hot;
    struct request *request = rpc->reading;
    pb_give(&request->reader, bytes, size);
    for (;;) {
        enum pb_step step = pb_read(&request->reader);
        if (step == PB_MORE)
            return PN_MORE;
        uint8_t *to = step == PB_TENSOR ? place(request) : NULL;
        if (!to)
            return request->refused ? PN_REFUSE : bridge(rpc, request->turn);
        pb_place(&request->reader, to);
    }
}

/* Which outputs are asked for. False: there is something wrong with them. */
static bool choose_outputs(struct request *request)
{
    const struct pb_reader *reader = &request->reader;
    const struct lane *lane = request->lane;
    uint32_t chosen = 0;
    request->wanted_count = reader->outputs_count ? reader->outputs_count : lane->outputs_count;
    for (unsigned at = 0; at < request->wanted_count; at++) {
        unsigned output = reader->outputs_count ? 0 : at;
        const struct pb_span *name = &reader->outputs[at];
        while (reader->outputs_count && output < lane->outputs_count &&
               (lane->outputs[output].size != name->size ||
                memcmp(lane->outputs[output].bytes, reader->head + name->at, name->size) != 0))
            output++;
        if (output == lane->outputs_count || chosen & 1U << output)
            return false;
        chosen |= 1U << output;
        request->wanted[at] = (uint8_t)output;
    }
    return true;
}

static bool is_complete(const struct request *request)
{
    return pb_is_whole(&request->reader) && request->admission &&
           request->reader.inputs_count == request->admission->inputs_count &&
           request->named_version == request->reader.has_version && !request->lane->pool->gone &&
           !request->lane->dropped;
}

/* By how much the answer is expected to miss the deadline; 0 if it is not. */
static uint64_t expected_excess_ns(struct request *request, uint64_t now_ns)
{
    struct lane *lane = request->lane;
    request->ahead = links_ahead(lane->pool, lane->level, now_ns);
    /* The first tensor of a unary request was looked at. */
    if (!request->deadline_ns || !request->rpc->stream)
        return 0;
    int64_t left_ns = (int64_t)(request->deadline_ns - now_ns);
    return expectation_excess_ns(&lane->expectation, request->ahead, left_ns, now_ns);
}

/* The time now, not of this round: what is looked for when a worker died was written before a certain time. */
static uint64_t clock_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

enum pn_verdict hot_message_end(struct pn_call *call)
{
    struct rpc *rpc = call->hot;
    struct request *request = rpc->reading;
    if (!is_complete(request) || !choose_outputs(request))
        return bridge(rpc, request->turn);
    uint64_t now_ns = loop_now_ns();
    uint64_t excess_ns = expected_excess_ns(request, now_ns);
    request->rows = request->admission->rows;
    request->queued_ns = clock_ns();
    if (!excess_ns && !tickets_put(request))
        return bridge(rpc, request->turn);
    requests_read(request, excess_ns ? REQUEST_HANDED : REQUEST_OUT);
    rpc->reading = NULL;
    if (excess_ns) {
        hand_late(request, excess_ns, request->deadline_ns > now_ns ? request->deadline_ns - now_ns : 0);
        return PN_TAKEN;
    }
    uint32_t *out = &request->lane->pool->out[request->lane->level];
    __atomic_store_n(out, *out + 1, __ATOMIC_RELAXED);
    return PN_TAKEN;
}

void hot_replay(struct pn_call *call, uint8_t *to, size_t fed)
{
    struct rpc *rpc = call->hot;
    struct request *request = rpc->reading;
    /* As many as were given is as many as the reader has: it loses none. */
    if (fed)
        pb_replay(&request->reader, to);
    if (request->turn)
        request->turn->bridged = true;
    end_request(request);
}

void hot_gone(struct pn_call *call)
{
    struct rpc *rpc = call->hot;
    if (!rpc)
        return;
    call->hot = NULL;
    rpc->waiting = false;
    uint64_t now_ns = loop_now_ns();
    while (rpc->requests) {
        struct request *request = rpc->requests;
        request->turn = NULL;
        rpc_detach(request);
        if (request->state == REQUEST_READING) {
            end_request(request);
        } else if (request->state == REQUEST_HANDED) {
            uint32_t event[2] = {request->slot, request->generation};
            bridge_hot_event(HOT_EVENT_CLIENT_GONE, (const uint8_t *)event, sizeof event);
        } else {
            bool late = call->deadline_ns && call->deadline_ns <= now_ns;
            uint64_t total_ns = now_ns > request->accepted_ns ? now_ns - request->accepted_ns : 0;
            counts_failed(request_counts(request), late ? COUNTS_DEADLINE_EXCEEDED : COUNTS_CANCELLED, total_ns);
            arena_block(request->block)[offsetof(struct request_header, cancelled)] = 1;
        }
    }
    rpc_end_turns(rpc);
    rpc->next_free = free_rpcs;
    free_rpcs = rpc;
}

static void retry_later(bool done)
{
    if (!done)
        loop_wake_hot_at(loop_now_ns() + again_ns);
}

void hot_round(void) { tickets_flush(); }

void hot_round_over(void) { retry_later(links_flush_releases()); }

void hot_completions(void) { retry_later(completions_read()); }

void hot_timer(void)
{
    bool released = links_flush_releases();
    retry_later(completions_pass_on() && released);
}

void hot_start(void) {}

void hot_stop(void)
{
    completions_clear();
    refusals_clear();
    requests_clear();
    routes_clear();
    links_clear();
    for (; free_rpcs;) {
        struct rpc *rpc = free_rpcs;
        free_rpcs = rpc->next_free;
        free(rpc);
    }
    hot_settings = (struct hot_settings){.completions = -1, .python_records = -1};
}
