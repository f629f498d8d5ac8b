/* How long a request that came now would wait in its queue, learned from those that were answered lately: what
 * frontend/expectation.py explains, with the same numbers. tests/native/test_same_rules.py holds both to it. */
#ifndef PN_EXPECTATION_H
#define PN_EXPECTATION_H

#include <stdint.h>

enum { EXPECTATION_SAMPLES = 33 };

/* The last samples in the order in which they came, and in their own. */
struct samples {
    double came[EXPECTATION_SAMPLES];
    double sorted[EXPECTATION_SAMPLES];
    unsigned count, next; /* how many; where the next one goes */
};

/* What the front end's other half may read at any time. */
struct expected {
    uint64_t cost_ns_bits; /* a double */
    uint64_t run_ns;
    uint64_t until_ns; /* when this is too old; 0: nothing is known */
};

struct expectation {
    struct samples costs, runs;
    unsigned unseen;
    uint64_t until_ns, run_ns;
    double cost_ns;
    struct expected *shared; /* NULL for nobody */
};

void expectation_answered(struct expectation *known, uint32_t ahead, uint64_t queue_ns, uint64_t compute_ns,
                          uint64_t now_ns);

/* The expected wait behind so many others; 0 while nothing is known. */
uint64_t expectation_wait_ns(struct expectation *known, uint32_t ahead, uint64_t now_ns);

/* By how much the wait for an answer is expected to exceed what is left of a deadline; 0 if it does not. */
uint64_t expectation_excess_ns(struct expectation *known, uint32_t ahead, int64_t left_ns, uint64_t now_ns);

#endif
