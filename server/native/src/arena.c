#include "arena.h"

#include <stdlib.h>

enum { SMALLEST_BITS = 9, LARGEST_BITS = 40, ALIGNMENT_BITS = 6 };

static unsigned bits(size_t value)
{
    unsigned count = 0;
    for (; value; value >>= 1)
        count++;
    return count;
}

size_t arena_class_bytes(size_t size)
{
    if (size <= (size_t)1 << SMALLEST_BITS)
        return (size_t)1 << SMALLEST_BITS;
    unsigned length = bits(size - 1);
    if (length >= LARGEST_BITS)
        return 0;
    unsigned step = length > ALIGNMENT_BITS + 3 ? length - 3 : ALIGNMENT_BITS;
    size_t quarter = (size_t)1 << step;
    return (size + quarter - 1) / quarter * quarter;
}

/* Of blocks of a size that arena_class_bytes gave. */
static struct arena_class *class_of(struct arena *arena, size_t block_bytes)
{
    unsigned power = bits(block_bytes) - 1;
    return &arena->classes[(power - SMALLEST_BITS) * 4 + (block_bytes >> (power - 2) & 3)];
}

const char *arena_add(struct arena *arena, uint32_t number, uint8_t *base, size_t block_bytes, uint32_t blocks)
{
    if (!blocks || !base || arena_class_bytes(block_bytes) != block_bytes)
        return "such a segment cannot be";
    for (struct segment *other = arena->segments; other; other = other->next)
        if (other->number == number)
            return "the segment was added already";
    struct segment *segment = malloc(sizeof *segment + blocks * sizeof segment->free[0]);
    if (!segment)
        return "no memory for a segment's free list";
    *segment = (struct segment){.next = arena->segments, .base = base, .number = number, .blocks = blocks};
    segment->block_bytes = block_bytes;
    segment->free_count = blocks;
    for (uint32_t at = 0; at < blocks; at++)
        segment->free[at] = blocks - 1 - at;
    arena->segments = segment;
    return NULL;
}

static struct segment *find_free(struct arena *arena, size_t block_bytes, bool retired)
{
    struct segment *segment = arena->segments;
    while (segment && (segment->block_bytes != block_bytes || !segment->free_count || segment->retired != retired))
        segment = segment->next;
    return segment;
}

bool arena_take(struct arena *arena, size_t size, struct block *block)
{
    size_t block_bytes = arena_class_bytes(size);
    struct segment *segment = find_free(arena, block_bytes, false);
    if (!segment && (segment = find_free(arena, block_bytes, true)))
        segment->retired = false;
    if (!segment)
        return false;
    *block = (struct block){segment, segment->free[--segment->free_count]};
    struct arena_class *class = class_of(arena, block_bytes);
    if (++class->used > class->peak)
        class->peak = class->used;
    return true;
}

void arena_free(struct arena *arena, struct block block)
{
    block.segment->free[block.segment->free_count++] = block.number;
    class_of(arena, block.segment->block_bytes)->used--;
}

uint8_t *arena_block(struct block block) { return block.segment->base + block.number * block.segment->block_bytes; }

void arena_retire(struct arena *arena, uint32_t number)
{
    for (struct segment *segment = arena->segments; segment; segment = segment->next)
        if (segment->number == number)
            segment->retired = true;
}

bool arena_remove_retired(struct arena *arena, uint32_t *number)
{
    for (struct segment **at = &arena->segments; *at; at = &(*at)->next) {
        struct segment *segment = *at;
        if (!segment->retired || segment->free_count < segment->blocks)
            continue;
        *number = segment->number;
        *at = segment->next;
        free(segment);
        return true;
    }
    return false;
}

uint32_t arena_peak(struct arena *arena, size_t block_bytes) { return class_of(arena, block_bytes)->peak; }

void arena_forget_peaks(struct arena *arena)
{
    for (unsigned at = 0; at < ARENA_CLASSES; at++)
        arena->classes[at].peak = arena->classes[at].used;
}

void arena_clear(struct arena *arena)
{
    while (arena->segments) {
        struct segment *segment = arena->segments;
        arena->segments = segment->next;
        free(segment);
    }
}
