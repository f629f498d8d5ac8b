#include "ways.h"

#include <string.h>

static uint64_t counts[WAYS];

void ways_count(enum way way) { counts[way]++; }

void ways_take(uint64_t taken[WAYS])
{
    memcpy(taken, counts, sizeof counts);
    memset(counts, 0, sizeof counts);
}
