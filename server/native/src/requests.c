#include "requests.h"

#include <stdlib.h>

static struct request *requests;
static uint32_t *free_slots;
static uint32_t first_slot, slots, free_count, reading;

const char *requests_make(uint32_t first, uint32_t count)
{
    if (requests)
        return "the slots were made already";
    requests = calloc(count, sizeof *requests);
    free_slots = calloc(count, sizeof *free_slots);
    if (!count || !requests || !free_slots) {
        requests_clear();
        return "no memory for the slots";
    }
    first_slot = first;
    slots = free_count = count;
    for (uint32_t at = 0; at < count; at++) {
        requests[at].slot = first + at;
        free_slots[at] = count - 1 - at;
    }
    return NULL;
}

void requests_clear(void)
{
    free(requests);
    free(free_slots);
    requests = NULL;
    free_slots = NULL;
    slots = free_count = reading = 0;
}

struct request *requests_take(uint32_t others)
{
    /* Clients that send slowly do not keep the others from theirs. */
    if (free_count <= others || reading >= (slots + 1) / 2)
        return NULL;
    struct request *request = &requests[free_slots[--free_count]];
    request->generation++;
    request->state = REQUEST_READING;
    reading++;
    request->rpc = NULL;
    request->next = request->previous = NULL;
    request->turn = NULL;
    request->lane = NULL;
    request->admission = NULL;
    request->client = NULL;
    request->why = WAY_SLOW;
    request->has_block = request->refused = false;
    return request;
}

struct request *requests_find(uint32_t slot, uint32_t generation)
{
    if (slot < first_slot || slot - first_slot >= slots)
        return NULL;
    struct request *request = &requests[slot - first_slot];
    return request->state != REQUEST_FREE && request->generation == generation ? request : NULL;
}

void requests_read(struct request *request, enum request_state state)
{
    if (request->admission)
        admission_release(request->admission);
    request->admission = NULL;
    request->state = state;
    reading--;
}

void requests_end(struct request *request)
{
    if (request->state == REQUEST_READING)
        requests_read(request, REQUEST_FREE);
    request->state = REQUEST_FREE;
    free_slots[free_count++] = request->slot - first_slot;
}

struct request *requests_all(uint32_t *count)
{
    *count = slots;
    return requests;
}

uint32_t requests_in_use(void) { return slots - free_count; }
