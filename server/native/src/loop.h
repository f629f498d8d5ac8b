/* The loop: one thread that waits for sockets, for Python's commands, for workers' answers and for times. */
#ifndef PN_LOOP_H
#define PN_LOOP_H

#include <stdbool.h>
#include <stdint.h>

struct pn_watch {
    int descriptor;
    void (*ready)(struct pn_watch *watch, uint32_t events);
};

/* Makes what the loop needs, before its thread runs. Gives NULL, or what failed, with errno. */
const char *loop_open(void);
/* Runs until loop_end was called and no connection is left. */
void loop_run(void);
void loop_end(void);
/* Frees what loop_open made, after the thread has ended. */
void loop_close(void);

/* One round, at most so many milliseconds of waiting; -1: as long as nothing is due. What loop_run does again and again.
 * False: epoll failed. */
bool loop_round(int longest_wait_ms);

/* `events` of epoll. False: epoll refuses, with errno. */
bool loop_watch(struct pn_watch *watch, uint32_t events);
bool loop_change(struct pn_watch *watch, uint32_t events);
void loop_forget(struct pn_watch *watch);

#endif
