#include "timers.h"

#include <stdlib.h>

/* heap[1] is due first, heap[i] before heap[2i] and heap[2i + 1]. */
static struct pn_timer **heap;
static size_t count;
static size_t capacity;

static void put(struct pn_timer *timer, size_t place)
{
    heap[place] = timer;
    timer->place = place;
}

static void rise(struct pn_timer *timer, size_t place)
{
    while (place > 1 && heap[place / 2]->at_ns > timer->at_ns) {
        put(heap[place / 2], place);
        place /= 2;
    }
    put(timer, place);
}

static void sink(struct pn_timer *timer, size_t place)
{
    for (;;) {
        size_t child = 2 * place;
        if (child > count)
            break;
        if (child < count && heap[child + 1]->at_ns < heap[child]->at_ns)
            child++;
        if (heap[child]->at_ns >= timer->at_ns)
            break;
        put(heap[child], place);
        place = child;
    }
    put(timer, place);
}

bool timer_set(struct pn_timer *timer, uint64_t at_ns)
{
    timer_clear(timer);
    if (count + 2 > capacity) {
        size_t larger = capacity ? 2 * capacity : 64;
        struct pn_timer **moved = realloc(heap, larger * sizeof *moved);
        if (moved == NULL)
            return false;
        heap = moved;
        capacity = larger;
    }
    timer->at_ns = at_ns;
    rise(timer, ++count);
    return true;
}

void timer_clear(struct pn_timer *timer)
{
    size_t place = timer->place;
    if (place == 0)
        return;
    timer->place = 0;
    struct pn_timer *last = heap[count--];
    if (last == timer)
        return;
    if (place > 1 && heap[place / 2]->at_ns > last->at_ns)
        rise(last, place);
    else
        sink(last, place);
}

void timers_run(uint64_t now_ns)
{
    while (count != 0 && heap[1]->at_ns <= now_ns) {
        struct pn_timer *timer = heap[1];
        timer_clear(timer);
        timer->due(timer);
    }
}

uint64_t timers_next(void)
{
    return count == 0 ? UINT64_MAX : heap[1]->at_ns;
}

void timers_forget(void)
{
    free(heap);
    heap = NULL;
    count = capacity = 0;
}
