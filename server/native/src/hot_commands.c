#include "hot_commands.h"

#include <stdlib.h>
#include <string.h>

const char misread[] = "the arguments are not what the command takes";
const char no_memory[] = "no memory";

struct arguments arguments_of(const uint8_t *bytes, size_t size)
{
    return (struct arguments){bytes, bytes + size, false};
}

const uint8_t *take_bytes(struct arguments *arguments, size_t size)
{
    if (arguments->short_ || size > (size_t)(arguments->end - arguments->at)) {
        arguments->short_ = true;
        return NULL;
    }
    const uint8_t *bytes = arguments->at;
    arguments->at += size;
    return bytes;
}

uint32_t take_u32(struct arguments *arguments)
{
    uint32_t value = 0;
    const uint8_t *bytes = take_bytes(arguments, sizeof value);
    if (bytes)
        memcpy(&value, bytes, sizeof value);
    return value;
}

uint64_t take_u64(struct arguments *arguments)
{
    uint64_t value = 0;
    const uint8_t *bytes = take_bytes(arguments, sizeof value);
    if (bytes)
        memcpy(&value, bytes, sizeof value);
    return value;
}

const uint8_t *take_text(struct arguments *arguments, size_t *size)
{
    *size = take_u32(arguments);
    const uint8_t *bytes = take_bytes(arguments, *size);
    if (!bytes)
        *size = 0;
    return bytes;
}

void *take_address(struct arguments *arguments) { return (void *)(uintptr_t)take_u64(arguments); }

bool is_read(const struct arguments *arguments) { return !arguments->short_ && arguments->at == arguments->end; }

uint8_t *make_result(struct hot_result *result, size_t size)
{
    result->bytes = calloc(size ? size : 1, 1);
    result->size = result->bytes ? size : 0;
    return result->bytes;
}

const struct hot_command hot_commands[] = {
    {"setup", command_setup},
    {"enable", command_enable},
    {"pool_add", command_pool_add},
    {"pool_shared", command_pool_shared},
    {"pool_gone", command_pool_gone},
    {"segment_add", command_segment_add},
    {"segments_retire", command_segments_retire},
    {"segments_gone", command_segments_gone},
    {"arena", command_arena},
    {"grown", command_grown},
    {"worker_add", command_worker_add},
    {"worker_gone", command_worker_gone},
    {"response_add", command_response_add},
    {"response_remove", command_response_remove},
    {"lane_add", command_lane_add},
    {"lane_drop", command_lane_drop},
    {"lane_forget", command_lane_forget},
    {"model", command_model},
    {"admission_add", command_admission_add},
    {"admissions_clear", command_admissions_clear},
    {"drain", command_drain},
    {"hand_over", command_hand_over},
    {"outstanding", command_outstanding},
    {"answer", command_answer},
    {"fail", command_fail},
    {"end", command_end},
    {"counts", command_counts},
    {"guard", command_guard},
    {"grant", command_grant},
    {"grants_clear", command_grants_clear},
    {"client_limit", command_client_limit},
    {"client_enter", command_client_enter},
    {"client_leave", command_client_leave},
    {"client_in_flight", command_client_in_flight},
    {"request_log", command_request_log},
    {"ways", command_ways},
    {NULL, NULL},
};
