/* What Python tells of lanes, of what their requests look like, and what it collects of them. */
#include <stdlib.h>
#include <string.h>

#include "hot_commands.h"
#include "hot.h"

enum { LANE_BATCHES = 1, LANE_NEEDS_DEADLINE = 2 };

/* Copies a text behind a struct, where its pointers point to. */
static const uint8_t *keep(uint8_t **text, const uint8_t *bytes, size_t size)
{
    uint8_t *at = *text;
    if (size)
        memcpy(at, bytes, size);
    *text = at + size;
    return at;
}

static struct pb_bytes take_kept(struct arguments *take, uint8_t **text)
{
    size_t size;
    const uint8_t *bytes = take_text(take, &size);
    return (struct pb_bytes){keep(text, bytes, size), size};
}

COMMAND(lane_add)
{
    struct arguments take = arguments_of(arguments, size);
    (void)result;
    /* The texts are a part of the arguments, so this is enough for them. */
    struct lane *lane = calloc(1, sizeof *lane + size);
    if (!lane)
        return no_memory;
    uint8_t *text = lane->text;
    lane->id = take_u32(&take);
    lane->pool = links_pool(take_u32(&take));
    uint32_t flags = take_u32(&take);
    lane->batches = flags & LANE_BATCHES;
    lane->needs_deadline = flags & LANE_NEEDS_DEADLINE;
    lane->level = take_u32(&take);
    lane->version = take_u64(&take);
    lane->answer_limit = take_u64(&take);
    lane->expectation.shared = take_address(&take);
    lane->model = take_kept(&take, &text);
    lane->version_text = take_kept(&take, &text);
    lane->outputs_count = take_u32(&take);
    for (unsigned at = 0; at < lane->outputs_count && at < PB_OUTPUTS_MAX; at++)
        lane->outputs[at] = take_kept(&take, &text);
    const char *wrong = NULL;
    if (!is_read(&take) || !lane->outputs_count || lane->outputs_count > PB_OUTPUTS_MAX)
        wrong = misread;
    else if (!lane->pool || !lane->level || lane->level > lane->pool->levels)
        wrong = "there is no such queue";
    else
        wrong = routes_add_lane(lane);
    if (wrong)
        free(lane);
    return wrong;
}

/* The lane gets no more requests. Gives how many it has. */
COMMAND(lane_drop)
{
    struct arguments take = arguments_of(arguments, size);
    struct lane *lane = routes_lane(take_u32(&take));
    uint8_t *bytes = is_read(&take) ? make_result(result, sizeof(uint32_t)) : NULL;
    if (!bytes)
        return is_read(&take) ? no_memory : misread;
    if (!lane)
        return NULL;
    lane->dropped = true;
    memcpy(bytes, &lane->outstanding, sizeof lane->outstanding);
    return NULL;
}

COMMAND(lane_forget)
{
    struct arguments take = arguments_of(arguments, size);
    (void)result;
    struct lane *lane = routes_lane(take_u32(&take));
    if (!is_read(&take))
        return misread;
    if (lane && lane->outstanding)
        return "the lane has requests";
    if (lane)
        routes_forget_lane(lane);
    return NULL;
}

COMMAND(model)
{
    struct arguments take = arguments_of(arguments, size);
    (void)result;
    size_t name_size;
    const uint8_t *name = take_text(&take, &name_size);
    uint32_t count = take_u32(&take);
    if (take.short_ || (size_t)(take.end - take.at) != (size_t)count * 12)
        return misread;
    struct route *routes = calloc(count ? count : 1, sizeof *routes);
    if (!routes)
        return no_memory;
    for (uint32_t at = 0; at < count; at++) {
        routes[at].version = take_u64(&take);
        routes[at].lane = take_u32(&take);
    }
    const char *wrong = routes_set_model(name, name_size, routes, count);
    free(routes);
    return wrong;
}

static void take_input(struct arguments *take, struct admission_input *input, uint8_t **text)
{
    struct pb_bytes name = take_kept(take, text);
    input->name = name.bytes;
    input->name_size = name.size;
    input->dtype = (uint8_t)take_u32(take);
    uint32_t rank = take_u32(take);
    take->short_ |= rank > PB_RANK_MAX;
    input->rank = (uint8_t)rank;
    for (uint32_t at = 0; at < rank && at < PB_RANK_MAX; at++)
        input->shape[at] = (int64_t)take_u64(take);
    input->offset = take_u64(take);
    input->nbytes = take_u64(take);
}

static bool lies_inside(const struct admission *admission)
{
    for (unsigned at = 0; at < admission->inputs_count; at++) {
        const struct admission_input *input = &admission->inputs[at];
        if (input->offset < admission->head_size || input->offset > admission->bytes ||
            input->nbytes > admission->bytes - input->offset)
            return false;
    }
    return admission->head_size >= sizeof(struct request_header) && admission->bytes <= UINT32_MAX;
}

COMMAND(admission_add)
{
    struct arguments take = arguments_of(arguments, size);
    (void)result;
    struct lane *lane = routes_lane(take_u32(&take));
    struct admission *admission = calloc(1, sizeof *admission + size);
    if (!admission)
        return no_memory;
    uint8_t *text = admission->text;
    admission->rows = take_u32(&take);
    admission->flags = (uint8_t)take_u32(&take);
    admission->shape_key = take_u64(&take);
    admission->bytes = take_u64(&take);
    struct pb_bytes head = take_kept(&take, &text);
    admission->head = head.bytes;
    admission->head_size = head.size;
    admission->inputs_count = take_u32(&take);
    for (unsigned at = 0; at < admission->inputs_count && at < PB_INPUTS_MAX; at++) {
        take_input(&take, &admission->inputs[at], &text);
        admission->tensors_bytes += admission->inputs[at].nbytes;
    }
    bool right = is_read(&take) && admission->inputs_count && admission->inputs_count <= PB_INPUTS_MAX;
    right = right && lies_inside(admission);
    if (!right || !lane || !admissions_add(&lane->admissions, admission)) {
        free(admission);
        return right ? NULL : misread;
    }
    return NULL;
}

COMMAND(admissions_clear)
{
    struct arguments take = arguments_of(arguments, size);
    (void)result;
    struct lane *lane = routes_lane(take_u32(&take));
    if (!is_read(&take))
        return misread;
    if (lane)
        admissions_clear(&lane->admissions);
    return NULL;
}

/* A row for each lane and protocol: lane, protocol, the wait that is expected, what was counted since the last time. */
COMMAND(counts)
{
    struct arguments take = arguments_of(arguments, size);
    if (!is_read(&take))
        return misread;
    size_t buckets = counts_buckets(), lanes = 0;
    size_t row_size = 2 * sizeof(uint32_t) + (1 + 2 * COUNTS_STATUSES + 3 + 2 * buckets) * sizeof(uint64_t);
    for (const struct lane *lane = routes_lanes(); lane; lane = lane->next)
        lanes++;
    uint8_t *to = make_result(result, 2 * lanes * row_size);
    if (!to)
        return no_memory;
    uint8_t *start = to;
    for (struct lane *lane = routes_lanes(); lane; lane = lane->next) {
        for (uint32_t api = 0; api < 2; api++) {
            struct counts *counts = &lane->counts[api];
            uint32_t ahead = lane->pool ? links_ahead(lane->pool, lane->level, loop_now_ns()) : 0;
            uint64_t expected_ns = expectation_wait_ns(&lane->expectation, ahead, loop_now_ns());
            if (!counts_any(counts) && !expected_ns)
                continue;
            memcpy(to, &lane->id, 4);
            memcpy(to + 4, &api, 4);
            memcpy(to + 8, &expected_ns, 8);
            to += 16;
            size_t before = offsetof(struct counts, durations);
            memcpy(to, counts, before);
            memcpy(to + before, counts->durations, buckets * 8);
            memcpy(to + before + buckets * 8, counts->queues, buckets * 8);
            to += before + 2 * buckets * 8;
            *counts = (struct counts){0};
        }
    }
    result->size = (size_t)(to - start);
    return NULL;
}
