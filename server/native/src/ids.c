#include "ids.h"

#include <stdlib.h>

/* An id is a use of a place: how often it was used before, then its number from 1. */
enum { PLACE_BITS = 32 };

struct place {
    struct pn_stream *stream;
    uint32_t uses;
    uint32_t next_free; /* from 1 */
};

static struct place *places;
static uint32_t count;
static uint32_t capacity;
static uint32_t first_free;

uint64_t id_new(struct pn_stream *stream)
{
    uint32_t number = first_free;
    if (number != 0) {
        first_free = places[number - 1].next_free;
    } else {
        if (count == capacity) {
            uint32_t larger = capacity ? 2 * capacity : 256;
            struct place *moved = realloc(places, larger * sizeof *moved);
            if (moved == NULL)
                return 0;
            places = moved;
            capacity = larger;
        }
        places[count] = (struct place){0};
        number = ++count;
    }
    places[number - 1].stream = stream;
    return (uint64_t)places[number - 1].uses << PLACE_BITS | number;
}

static struct place *find(uint64_t id)
{
    uint32_t number = (uint32_t)id;
    if (number == 0 || number > count || places[number - 1].uses != (uint32_t)(id >> PLACE_BITS))
        return NULL;
    return &places[number - 1];
}

struct pn_stream *id_find(uint64_t id)
{
    struct place *place = find(id);
    return place == NULL ? NULL : place->stream;
}

void id_free(uint64_t id)
{
    struct place *place = find(id);
    if (place == NULL)
        return;
    place->stream = NULL;
    place->uses++;
    place->next_free = first_free;
    first_free = (uint32_t)id;
}

void ids_forget(void)
{
    free(places);
    places = NULL;
    count = capacity = first_free = 0;
}
