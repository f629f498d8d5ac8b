#include "expectation.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

enum { ENOUGH_SAMPLES = 9, ANSWERS_BETWEEN_LOOKS = 4, WAITS_KEPT = 4 };
static const uint64_t kept_ns = UINT64_C(3000000000);
static const double slack = 1.25;

void expectation_answered(struct expectation *known, uint32_t ahead, uint64_t queue_ns, uint64_t compute_ns,
                          uint64_t now_ns) {
    if (now_ns > known->until_ns) {
        known->count = known->next = 0;
        known->cost_ns = 0;
    }
    known->costs[known->next] = (double)queue_ns / (ahead ? ahead : 1);
    known->runs[known->next] = compute_ns;
    known->next = (known->next + 1) % EXPECTATION_SAMPLES;
    if (known->count < EXPECTATION_SAMPLES)
        known->count++;
    known->until_ns = now_ns + kept_ns + WAITS_KEPT * (queue_ns + compute_ns);
    known->unseen++;
}

static int compare_costs(const void *one, const void *other) {
    double a = *(const double *)one, b = *(const double *)other;
    return (a > b) - (a < b);
}

static int compare_runs(const void *one, const void *other) {
    uint64_t a = *(const uint64_t *)one, b = *(const uint64_t *)other;
    return (a > b) - (a < b);
}

static void look(struct expectation *known) {
    double costs[EXPECTATION_SAMPLES];
    uint64_t runs[EXPECTATION_SAMPLES];
    memcpy(costs, known->costs, sizeof costs);
    memcpy(runs, known->runs, sizeof runs);
    qsort(costs, known->count, sizeof costs[0], compare_costs);
    qsort(runs, known->count, sizeof runs[0], compare_runs);
    known->cost_ns = costs[known->count / 2];
    known->run_ns = runs[known->count / 2];
    known->unseen = 0;
}

static bool is_known(struct expectation *known, uint64_t now_ns) {
    if (now_ns > known->until_ns || known->count < ENOUGH_SAMPLES)
        return false;
    if (known->unseen >= ANSWERS_BETWEEN_LOOKS || known->cost_ns == 0)
        look(known);
    return true;
}

uint64_t expectation_wait_ns(struct expectation *known, uint32_t ahead, uint64_t now_ns) {
    return ahead && is_known(known, now_ns) ? (uint64_t)(ahead * known->cost_ns) : 0;
}

uint64_t expectation_excess_ns(struct expectation *known, uint32_t ahead, int64_t left_ns, uint64_t now_ns) {
    uint64_t wait_ns = expectation_wait_ns(known, ahead, now_ns);
    if (!wait_ns)
        return 0;
    int64_t excess_ns = (int64_t)((double)wait_ns * slack) + (int64_t)known->run_ns - left_ns;
    return excess_ns > 0 ? (uint64_t)excess_ns : 0;
}
