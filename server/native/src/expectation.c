#include "expectation.h"

#include <stdbool.h>
#include <string.h>

enum { ENOUGH_SAMPLES = 9, ANSWERS_BETWEEN_LOOKS = 4, WAITS_KEPT = 4 };
static const uint64_t kept_ns = UINT64_C(3000000000);
static const double slack = 1.25;

/* The first place whose sample is not below the value. */
static unsigned place_of(const struct samples *samples, double value)
{
    unsigned low = 0, high = samples->count;
    while (low < high) {
        unsigned middle = (low + high) / 2;
        if (samples->sorted[middle] < value)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* Kept in order all the time: to sort them for each look costs more than all the rest of a small request. */
static void add_sample(struct samples *samples, double value)
{
    if (samples->count == EXPECTATION_SAMPLES) {
        unsigned oldest = place_of(samples, samples->came[samples->next]);
        samples->count--;
        memmove(samples->sorted + oldest, samples->sorted + oldest + 1,
                (samples->count - oldest) * sizeof samples->sorted[0]);
    }
    unsigned place = place_of(samples, value);
    memmove(samples->sorted + place + 1, samples->sorted + place,
            (samples->count - place) * sizeof samples->sorted[0]);
    samples->sorted[place] = value;
    samples->came[samples->next] = value;
    samples->next = (samples->next + 1) % EXPECTATION_SAMPLES;
    samples->count++;
}

static void forget_samples(struct samples *samples) { samples->count = samples->next = 0; }

static void share(const struct expectation *known)
{
    uint64_t bits;
    memcpy(&bits, &known->cost_ns, sizeof bits);
    __atomic_store_n(&known->shared->cost_ns_bits, bits, __ATOMIC_RELAXED);
    __atomic_store_n(&known->shared->run_ns, known->run_ns, __ATOMIC_RELAXED);
    __atomic_store_n(&known->shared->until_ns, known->until_ns, __ATOMIC_RELAXED);
}

static bool is_known(struct expectation *known, uint64_t now_ns)
{
    if (now_ns > known->until_ns || known->costs.count < ENOUGH_SAMPLES)
        return false;
    if (known->unseen >= ANSWERS_BETWEEN_LOOKS || known->cost_ns == 0) {
        known->cost_ns = known->costs.sorted[known->costs.count / 2];
        known->run_ns = (uint64_t)known->runs.sorted[known->runs.count / 2];
        known->unseen = 0;
    }
    return true;
}

void expectation_answered(struct expectation *known, uint32_t ahead, uint64_t queue_ns, uint64_t compute_ns,
                          uint64_t now_ns)
{
    if (now_ns > known->until_ns) {
        forget_samples(&known->costs);
        forget_samples(&known->runs);
        known->cost_ns = 0;
    }
    add_sample(&known->costs, (double)queue_ns / (ahead ? ahead : 1));
    add_sample(&known->runs, (double)compute_ns);
    known->until_ns = now_ns + kept_ns + WAITS_KEPT * (queue_ns + compute_ns);
    known->unseen++;
    if (known->shared && known->unseen >= ANSWERS_BETWEEN_LOOKS && is_known(known, now_ns))
        share(known);
}

uint64_t expectation_wait_ns(struct expectation *known, uint32_t ahead, uint64_t now_ns)
{
    return ahead && is_known(known, now_ns) ? (uint64_t)(ahead * known->cost_ns) : 0;
}

uint64_t expectation_excess_ns(struct expectation *known, uint32_t ahead, int64_t left_ns, uint64_t now_ns)
{
    uint64_t wait_ns = expectation_wait_ns(known, ahead, now_ns);
    if (!wait_ns)
        return 0;
    int64_t excess_ns = (int64_t)((double)wait_ns * slack) + (int64_t)known->run_ns - left_ns;
    return excess_ns > 0 ? (uint64_t)excess_ns : 0;
}
