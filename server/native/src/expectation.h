/* How long a request that came now would wait in its queue, learned from those that were answered lately: what
 * frontend/expectation.py explains, with the same numbers. tests/native/test_same_rules.py holds both to it. */
#ifndef PN_EXPECTATION_H
#define PN_EXPECTATION_H

#include <stdint.h>

enum { EXPECTATION_SAMPLES = 33 };

struct expectation {
    double costs[EXPECTATION_SAMPLES];
    uint64_t runs[EXPECTATION_SAMPLES];
    unsigned count, next; /* of the samples; where the next one goes */
    unsigned unseen;
    uint64_t until_ns, run_ns;
    double cost_ns;
};

void expectation_answered(struct expectation *known, uint32_t ahead, uint64_t queue_ns, uint64_t compute_ns,
                          uint64_t now_ns);

/* The expected wait behind so many others; 0 while nothing is known. */
uint64_t expectation_wait_ns(struct expectation *known, uint32_t ahead, uint64_t now_ns);

/* By how much the wait for an answer is expected to exceed what is left of a deadline; 0 if it does not. */
uint64_t expectation_excess_ns(struct expectation *known, uint32_t ahead, int64_t left_ns, uint64_t now_ns);

#endif
