/* Times at which something is due: a heap, of the loop's thread. */
#ifndef PN_TIMERS_H
#define PN_TIMERS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct pn_timer {
    uint64_t at_ns;
    size_t place; /* in the heap, from 1; 0: not set */
    void (*due)(struct pn_timer *timer);
};

/* Sets it, or sets it anew. False: no memory, and it is not set. */
bool timer_set(struct pn_timer *timer, uint64_t at_ns);
void timer_clear(struct pn_timer *timer);
/* Calls all that are due. They may set and clear timers. */
void timers_run(uint64_t now_ns);
/* When the next is due; UINT64_MAX: never. */
uint64_t timers_next(void);
void timers_forget(void);

#endif
