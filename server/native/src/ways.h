/* How many requests were answered here, and why the others were not. */
#ifndef PN_WAYS_H
#define PN_WAYS_H

#include <stdint.h>

/* In the order of NATIVE_WAYS in observe/deltas.py. */
enum way {
    WAY_HOT,        /* answered, refused or given up here */
    WAY_HANDED,     /* begun here, and handed to Python before its end */
    WAY_CLOSED,     /* nothing is taken at the moment */
    WAY_COMPRESSED, /* and large, or broken, or inflating more would keep others waiting */
    WAY_CALLER,     /* Python has to look at who calls */
    WAY_CLIENT,     /* its client has as many requests as it may have */
    WAY_LANE,       /* there is no such lane here, or it has rules of its own */
    WAY_SHAPE,      /* no such request was checked yet */
    WAY_CONTENT,    /* it says what is not read here */
    WAY_MEMORY,
    WAY_BUSY,       /* no slot is free, the queue is half full, or lines of the log wait */
    WAY_SLOW,       /* its message took too long to come, or much else is uploaded */
    WAYS,
};

void ways_count(enum way way);
/* Since the last time. */
void ways_take(uint64_t counts[WAYS]);

#endif
