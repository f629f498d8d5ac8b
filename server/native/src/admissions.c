#include "admissions.h"

#include <stdlib.h>
#include <string.h>

static uint64_t mix(uint64_t hash, uint64_t value)
{
    hash = (hash ^ value) * UINT64_C(0x9E3779B97F4A7C15);
    return hash ^ hash >> 29;
}

static unsigned bucket_of(const uint8_t *name, size_t size, uint8_t dtype, unsigned rank, const int64_t *shape)
{
    uint64_t hash = mix(size, dtype);
    for (size_t at = 0; at < size; at++)
        hash = mix(hash, name[at]);
    for (unsigned at = 0; at < rank; at++)
        hash = mix(hash, (uint64_t)shape[at]);
    return (unsigned)(hash >> 32) % ADMISSION_BUCKETS;
}

bool admissions_add(struct admissions *known, struct admission *admission)
{
    if (known->count >= ADMISSIONS_MAX)
        return false;
    const struct admission_input *first = &admission->inputs[0];
    unsigned bucket = bucket_of(first->name, first->name_size, first->dtype, first->rank, first->shape);
    admission->next = known->buckets[bucket];
    known->buckets[bucket] = admission;
    known->count++;
    return true;
}

bool admission_has(const struct admission *admission, const struct pb_reader *reader, unsigned number)
{
    if (number >= admission->inputs_count)
        return false;
    const struct admission_input *known = &admission->inputs[number];
    const struct pb_input *input = &reader->inputs[number];
    return input->dtype == known->dtype && input->rank == known->rank && input->has_name &&
           input->name.size == known->name_size &&
           memcmp(reader->head + input->name.at, known->name, known->name_size) == 0 &&
           memcmp(input->shape, known->shape, known->rank * sizeof known->shape[0]) == 0;
}

static bool fits(const struct admission *admission, const struct pb_reader *reader)
{
    if (!reader->oip)
        return admission->tensors_bytes <= reader->length && admission_has(admission, reader, 0);
    if (admission->inputs_count != reader->inputs_count)
        return false;
    for (unsigned number = 0; number < admission->inputs_count; number++)
        if (!admission_has(admission, reader, number))
            return false;
    return true;
}

struct admission *admissions_find(struct admissions *known, const struct pb_reader *reader)
{
    const struct pb_input *first = &reader->inputs[0];
    if (!reader->inputs_count || !first->has_name)
        return NULL;
    /* Where inputs vary independently, the message's length is a good guess at which they are. */
    struct admission *last = known->last;
    if (last && fits(last, reader) && (reader->oip || reader->length - last->tensors_bytes < PB_HEAD_MAX))
        return last;
    unsigned bucket =
        bucket_of(reader->head + first->name.at, first->name.size, first->dtype, first->rank, first->shape);
    struct admission *best = NULL;
    for (struct admission *at = known->buckets[bucket]; at; at = at->next)
        if (fits(at, reader) && (!best || at->tensors_bytes > best->tensors_bytes))
            best = at;
    if (best)
        known->last = best;
    return best;
}

void admission_release(struct admission *admission)
{
    if (!--admission->uses && admission->forgotten)
        free(admission);
}

void admissions_clear(struct admissions *known)
{
    for (unsigned bucket = 0; bucket < ADMISSION_BUCKETS; bucket++) {
        while (known->buckets[bucket]) {
            struct admission *admission = known->buckets[bucket];
            known->buckets[bucket] = admission->next;
            admission->forgotten = true;
            admission->uses++;
            admission_release(admission);
        }
    }
    *known = (struct admissions){0};
}
