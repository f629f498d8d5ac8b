/* Writes the answers: PredictResponse, ModelInferResponse, and what streams wrap around them. Byte for byte as the
 * Python adapters write them. */
#ifndef PN_PB_WRITE_H
#define PN_PB_WRITE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "pb_read.h"

struct pb_bytes {
    const uint8_t *bytes;
    size_t size;
};

struct pb_output {
    struct pb_bytes name;
    uint8_t dtype;
    uint8_t rank;
    int64_t shape[PB_RANK_MAX];
    struct pb_bytes data;
    size_t shape_size; /* encoded */
    size_t about_size; /* of all that stands before the data; both by pb_answer_size */
};

struct pb_answer {
    bool oip, stream;
    struct pb_bytes id, model, version_text;
    uint64_t version;
    uint64_t queue_ns, compute_ns, batch_rows;
    unsigned outputs_count;
    struct pb_output outputs[PB_OUTPUTS_MAX];
    size_t timing_size, response_size; /* by pb_answer_size */
};

/* How many bytes the answer takes; to be called once, before pb_answer_write. */
size_t pb_answer_size(struct pb_answer *answer);

/* Writes so many bytes. Gives where they end. */
uint8_t *pb_answer_write(const struct pb_answer *answer, uint8_t *to);

#endif
