/* Reading what Python packed: little-endian numbers, and texts with a u32 length before them. */
#ifndef PN_HOT_COMMANDS_H
#define PN_HOT_COMMANDS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "call.h"

struct arguments {
    const uint8_t *at, *end;
    bool short_; /* something was read that is not there */
};

struct arguments arguments_of(const uint8_t *bytes, size_t size);
uint32_t take_u32(struct arguments *arguments);
uint64_t take_u64(struct arguments *arguments);
/* So many bytes, or NULL. */
const uint8_t *take_bytes(struct arguments *arguments, size_t size);
const uint8_t *take_text(struct arguments *arguments, size_t *size);
/* An address of memory that Python keeps mapped. */
void *take_address(struct arguments *arguments);
/* All was there, and nothing else. */
bool is_read(const struct arguments *arguments);

/* Room for a result of so many bytes, zeroed; NULL without memory. */
uint8_t *make_result(struct hot_result *result, size_t size);

extern const char misread[];
extern const char no_memory[];

/* hot_memory.c, hot_lanes.c, hot_requests.c, hot_callers.c: the functions of hot_commands. */
#define COMMAND(name) const char *command_##name(const uint8_t *arguments, size_t size, struct hot_result *result)
COMMAND(setup);
COMMAND(enable);
COMMAND(pool_add);
COMMAND(pool_shared);
COMMAND(pool_gone);
COMMAND(segment_add);
COMMAND(segments_retire);
COMMAND(segments_gone);
COMMAND(arena);
COMMAND(grown);
COMMAND(worker_add);
COMMAND(worker_gone);
COMMAND(response_add);
COMMAND(response_remove);
COMMAND(lane_add);
COMMAND(lane_drop);
COMMAND(lane_forget);
COMMAND(model);
COMMAND(admission_add);
COMMAND(admissions_clear);
COMMAND(drain);
COMMAND(hand_over);
COMMAND(outstanding);
COMMAND(answer);
COMMAND(fail);
COMMAND(end);
COMMAND(counts);
COMMAND(guard);
COMMAND(grant);
COMMAND(grants_clear);
COMMAND(client_limit);
COMMAND(client_enter);
COMMAND(client_leave);
COMMAND(client_in_flight);
COMMAND(request_log);
COMMAND(ways);

#endif
