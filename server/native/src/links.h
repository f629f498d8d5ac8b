/* Whom tickets go to and who answers: pools with their queues and arenas, workers with their memory. */
#ifndef PN_LINKS_H
#define PN_LINKS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "arena.h"
#include "records.h"

struct request;

/* A level's tickets of this round. */
struct ticket_batch {
    unsigned count;
    struct ticket tickets[RECORDS_PER_WRITE];
    struct request *requests[RECORDS_PER_WRITE];
};

struct pool {
    struct pool *next;
    uint32_t id;
    unsigned levels;
    unsigned frontends;     /* that write into the same queues */
    bool shared;            /* by several lanes, of which none may have it all */
    uint32_t limit;         /* tickets that may wait in a level */
    int queues[LEVELS_MAX]; /* write ends by level, from 0 */
    struct arena arena;
    /* Tickets that are out, by level from 1: ours, written here and read by Python, and those of Python's own. */
    uint32_t *out;
    const uint32_t *python_out;
    uint64_t changed_ns; /* when a worker last came or went */
    bool gone;     /* forgotten once it holds nothing */
    uint32_t held; /* blocks of requests */
    bool growth_asked; /* of Python, for which it has not told the outcome */
    uint64_t looked_ns;
    uint32_t ahead[LEVELS_MAX + 1]; /* of other front ends too, as it was then */
    bool dirty;
    struct ticket_batch *batches[LEVELS_MAX]; /* made when first needed */
};

struct response_segment {
    struct response_segment *next;
    const uint8_t *base;
    uint32_t number;
    uint32_t blocks;
    size_t block_bytes;
};

struct worker {
    struct worker *next;
    uint32_t id, pool;
    int releases_fd;
    const uint8_t *claims;
    struct response_segment *segments;
    /* Releases that wait to be written. */
    struct release *unreleased;
    size_t unreleased_count, unreleased_room;
};

struct pool *links_pool(uint32_t id);
struct worker *links_worker(uint32_t id);
struct pool *links_pools(void);

/* Descriptors are theirs from then on. Each gives a text of what is wrong, or NULL. */
const char *links_add_pool(struct pool *pool); /* a malloc'ed one */
const char *links_add_worker(uint32_t id, uint32_t pool, int releases_fd, const uint8_t *claims, uint64_t now_ns);
const char *links_add_response_segment(uint32_t worker, uint32_t number, const uint8_t *base, size_t block_bytes,
                                       uint32_t blocks);
void links_remove_response_segment(uint32_t worker, uint32_t number);
void links_remove_pool(uint32_t id);
void links_remove_worker(uint32_t id, uint64_t now_ns);
void links_clear(void);

/* The bytes of a block of a worker's answers, and how many they are; NULL where there is no such block. */
const uint8_t *links_response(const struct worker *worker, uint32_t segment, uint32_t block, size_t *size);

/* Gives answers back, soon. */
void links_release(struct worker *worker, uint32_t frontend, uint32_t segment, uint32_t block);

/* Writes what there is to give back. False: a worker does not read, to be tried again later. */
bool links_flush_releases(void);

/* Tickets of Python's own that are out, as of this round. */
uint32_t links_python_out(uint64_t now_ns);

/* Requests that are served before one that comes now to a level: those that wait and those that run. */
uint32_t links_ahead(struct pool *pool, unsigned level, uint64_t now_ns);

#endif
