/* libFuzzer: the readers of requests. Whatever comes, in whatever pieces, is given back byte by byte. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "pb_read.h"

enum { TENSORS_MAX = PB_INPUTS_MAX };

/* Where tensors go: each to memory of its own, exactly as large, so that the sanitizer sees one byte too many. */
struct tensors {
    uint8_t *bytes[TENSORS_MAX];
    unsigned count;
};

static bool feed(struct pb_reader *reader, struct tensors *tensors, const uint8_t *bytes, size_t size)
{
    pb_give(reader, bytes, size);
    for (;;) {
        enum pb_step step = pb_read(reader);
        if (step == PB_MORE)
            return true;
        if (step == PB_OTHER || tensors->count == TENSORS_MAX)
            return false;
        uint8_t *to = malloc(reader->next.size);
        if (to == NULL)
            abort();
        tensors->bytes[tensors->count++] = to;
        pb_place(reader, to);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct pb_reader reader;
    struct tensors tensors = {.count = 0};
    if (size < 3)
        return 0;
    bool oip = data[0] & 1;
    size_t piece = (size_t)(data[0] >> 1) + 1, missing = data[1] & 3;
    data += 2;
    size -= 2;
    pb_begin(&reader, oip, size + missing);
    size_t fed = 0;
    bool plain = true;
    while (plain && fed < size) {
        size_t count = size - fed < piece ? size - fed : piece;
        /* A copy, so that reading behind a piece is seen. */
        uint8_t *copy = malloc(count);
        if (copy == NULL)
            abort();
        memcpy(copy, data + fed, count);
        plain = feed(&reader, &tensors, copy, count);
        fed += count;
        uint8_t *again = malloc(fed);
        if (again == NULL || pb_replay(&reader, again) != fed || memcmp(again, data, fed) != 0)
            abort();
        free(again);
        free(copy);
    }
    if (plain && missing && pb_is_whole(&reader))
        abort();
    for (unsigned at = 0; at < tensors.count; at++)
        free(tensors.bytes[at]);
    return 0;
}
