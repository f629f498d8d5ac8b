#include "links.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

/* Queues of several front ends are looked at, at most so often. */
enum { LOOK_EVERY_NS = 200000 };

static struct pool *pools;
static struct worker *workers;

struct pool *links_pools(void) { return pools; }

struct pool *links_pool(uint32_t id)
{
    struct pool *pool = pools;
    while (pool && pool->id != id)
        pool = pool->next;
    return pool;
}

struct worker *links_worker(uint32_t id)
{
    struct worker *worker = workers;
    while (worker && worker->id != id)
        worker = worker->next;
    return worker;
}

const char *links_add_pool(struct pool *pool)
{
    if (links_pool(pool->id))
        return "the pool was added already";
    pool->next = pools;
    pools = pool;
    return NULL;
}

static void note_change(uint32_t id, uint64_t now_ns)
{
    struct pool *pool = links_pool(id);
    if (pool)
        pool->changed_ns = now_ns;
}

const char *links_add_worker(uint32_t id, uint32_t pool, int releases_fd, const uint8_t *claims, uint64_t now_ns)
{
    if (links_worker(id))
        return "the worker was added already";
    struct worker *worker = calloc(1, sizeof *worker);
    if (!worker)
        return "no memory for a worker";
    *worker = (struct worker){.next = workers, .id = id, .pool = pool, .releases_fd = releases_fd, .claims = claims};
    workers = worker;
    note_change(pool, now_ns);
    return NULL;
}

const char *links_add_response_segment(uint32_t id, uint32_t number, const uint8_t *base, size_t block_bytes,
                                       uint32_t blocks)
{
    struct worker *worker = links_worker(id);
    if (!worker)
        return "there is no such worker";
    struct response_segment *segment = malloc(sizeof *segment);
    if (!segment)
        return "no memory for a worker's segment";
    *segment = (struct response_segment){worker->segments, base, number, blocks, block_bytes};
    worker->segments = segment;
    return NULL;
}

void links_remove_response_segment(uint32_t id, uint32_t number)
{
    struct worker *worker = links_worker(id);
    for (struct response_segment **at = worker ? &worker->segments : NULL; at && *at; at = &(*at)->next) {
        struct response_segment *segment = *at;
        if (segment->number != number)
            continue;
        *at = segment->next;
        free(segment);
        return;
    }
}

static void free_pool(struct pool *pool)
{
    for (unsigned level = 0; level < pool->levels; level++) {
        close(pool->queues[level]);
        free(pool->batches[level]);
    }
    arena_clear(&pool->arena);
    free(pool);
}

static void free_worker(struct worker *worker)
{
    while (worker->segments) {
        struct response_segment *segment = worker->segments;
        worker->segments = segment->next;
        free(segment);
    }
    close(worker->releases_fd);
    free(worker->unreleased);
    free(worker);
}

void links_remove_pool(uint32_t id)
{
    for (struct pool **at = &pools; *at; at = &(*at)->next) {
        struct pool *pool = *at;
        if (pool->id != id)
            continue;
        *at = pool->next;
        free_pool(pool);
        return;
    }
}

void links_remove_worker(uint32_t id, uint64_t now_ns)
{
    for (struct worker **at = &workers; *at; at = &(*at)->next) {
        struct worker *worker = *at;
        if (worker->id != id)
            continue;
        *at = worker->next;
        note_change(worker->pool, now_ns);
        free_worker(worker);
        return;
    }
}

void links_clear(void)
{
    while (pools)
        links_remove_pool(pools->id);
    while (workers)
        links_remove_worker(workers->id, 0);
}

const uint8_t *links_response(const struct worker *worker, uint32_t number, uint32_t block, size_t *size)
{
    const struct response_segment *segment = worker->segments;
    while (segment && segment->number != number)
        segment = segment->next;
    if (!segment || block >= segment->blocks)
        return NULL;
    *size = segment->block_bytes;
    return segment->base + block * segment->block_bytes;
}

void links_release(struct worker *worker, uint32_t frontend, uint32_t segment, uint32_t block)
{
    if (worker->unreleased_count) {
        struct release *last = &worker->unreleased[worker->unreleased_count - 1];
        if (last->segment == segment && last->block == block) {
            last->count++;
            return;
        }
    }
    if (worker->unreleased_count == worker->unreleased_room) {
        size_t room = worker->unreleased_room ? 2 * worker->unreleased_room : RECORDS_PER_WRITE;
        struct release *grown = realloc(worker->unreleased, room * sizeof *grown);
        /* Whoever is out of a few kilobytes cannot serve on: started anew, it gives everything back. */
        if (!grown)
            abort();
        worker->unreleased = grown;
        worker->unreleased_room = room;
    }
    worker->unreleased[worker->unreleased_count++] =
        (struct release){.frontend = frontend, .segment = segment, .block = block, .count = 1};
}

static bool flush_worker(struct worker *worker)
{
    size_t written = 0;
    while (written < worker->unreleased_count) {
        size_t count = worker->unreleased_count - written;
        if (count > RECORDS_PER_WRITE)
            count = RECORDS_PER_WRITE;
        if (write(worker->releases_fd, worker->unreleased + written, count * RECORD_BYTES) < 0) {
            if (errno == EINTR)
                continue;
            /* A pipe without a reader: the worker is dead, as Python is about to be told. */
            if (errno != EAGAIN)
                written = worker->unreleased_count;
            break;
        }
        written += count;
    }
    worker->unreleased_count -= written;
    memmove(worker->unreleased, worker->unreleased + written, worker->unreleased_count * RECORD_BYTES);
    return !worker->unreleased_count;
}

bool links_flush_releases(void)
{
    bool all = true;
    for (struct worker *worker = workers; worker; worker = worker->next)
        if (worker->unreleased_count)
            all &= flush_worker(worker);
    return all;
}

static uint32_t pipe_depth(int descriptor)
{
    int waiting = 0;
    return ioctl(descriptor, FIONREAD, &waiting) < 0 ? 0 : (uint32_t)waiting / RECORD_BYTES;
}

static uint32_t claimed_tickets(const struct pool *pool)
{
    uint32_t sum = 0;
    for (const struct worker *worker = workers; worker; worker = worker->next) {
        if (worker->pool != pool->id)
            continue;
        uint32_t count = __atomic_load_n((const uint32_t *)(const void *)worker->claims, __ATOMIC_RELAXED);
        sum += count < CLAIMS_CAPACITY ? count : CLAIMS_CAPACITY;
    }
    return sum;
}

static void look_around(struct pool *pool, uint64_t now_ns)
{
    if (now_ns - pool->looked_ns < LOOK_EVERY_NS)
        return;
    pool->looked_ns = now_ns;
    uint32_t sum = claimed_tickets(pool);
    for (unsigned level = 1; level <= pool->levels; level++) {
        sum += pipe_depth(pool->queues[level - 1]);
        pool->ahead[level] = sum;
    }
}

uint32_t links_python_out(uint64_t now_ns)
{
    static uint64_t looked_ns;
    static uint32_t sum;
    if (now_ns == looked_ns)
        return sum;
    looked_ns = now_ns;
    sum = 0;
    for (const struct pool *pool = pools; pool; pool = pool->next)
        for (unsigned level = 1; level <= pool->levels; level++)
            sum += __atomic_load_n(&pool->python_out[level], __ATOMIC_RELAXED);
    return sum;
}

uint32_t links_ahead(struct pool *pool, unsigned level, uint64_t now_ns)
{
    uint32_t own = 0;
    for (unsigned at = 1; at <= level; at++)
        own += pool->out[at] + __atomic_load_n(&pool->python_out[at], __ATOMIC_RELAXED);
    if (pool->frontends == 1)
        return own;
    look_around(pool, now_ns);
    return own > pool->ahead[level] ? own : pool->ahead[level];
}
