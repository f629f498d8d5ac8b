/* Blocks of shared memory for requests: segments that Python made and mapped, and who has which block of them. Python
 * decides what is added and what is given back (retention.py); here is only taken and freed. */
#ifndef PN_ARENA_H
#define PN_ARENA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Four to each power of two, from 512 bytes on. */
enum { ARENA_CLASSES = 128 };

struct segment {
    struct segment *next;
    uint8_t *base;
    uint32_t number;
    uint32_t blocks;
    size_t block_bytes;
    bool retired; /* gives no more blocks */
    uint32_t free_count;
    uint32_t free[]; /* numbers of blocks */
};

struct arena_class {
    uint32_t used, peak;
};

struct arena {
    struct segment *segments;
    struct arena_class classes[ARENA_CLASSES];
};

struct block {
    struct segment *segment;
    uint32_t number;
};

/* The size of the blocks for so many bytes, as transport/allocator.py has it; 0 where there are none so large. */
size_t arena_class_bytes(size_t size);

/* Puts a segment to use. Gives a text of what is wrong, or NULL. */
const char *arena_add(struct arena *arena, uint32_t number, uint8_t *base, size_t block_bytes, uint32_t blocks);

/* Takes a block of at least `size` bytes. False: none is free. */
bool arena_take(struct arena *arena, size_t size, struct block *block);
void arena_free(struct arena *arena, struct block block);
uint8_t *arena_block(struct block block);

/* Takes no more blocks of a segment, until they are needed before all of its blocks are back. */
void arena_retire(struct arena *arena, uint32_t number);

/* Forgets one retired segment that has all its blocks back. False: there is none. */
bool arena_remove_retired(struct arena *arena, uint32_t *number);

/* The most blocks of a size that were in use at once. */
uint32_t arena_peak(struct arena *arena, size_t block_bytes);

/* What is in use now is the first peak from now on. */
void arena_forget_peaks(struct arena *arena);

/* Forgets all segments. */
void arena_clear(struct arena *arena);

#endif
