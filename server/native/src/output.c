#include "output.h"

#include <stdlib.h>
#include <string.h>

/* A frame of 16 KiB is at most so many pieces: large ones, copied ones between them. */
enum { STORES_KEPT_MAX = 64, PIECES_AT_ONCE = 12 };

struct pn_store {
    struct pn_store *next;
    uint8_t data[OUTPUT_BYTES];
};

static struct pn_store *kept;
static size_t kept_count;

static bool has_store(struct pn_output *output)
{
    if (output->store != NULL)
        return true;
    if (kept != NULL) {
        output->store = kept;
        kept = kept->next;
        kept_count--;
        return true;
    }
    output->store = malloc(sizeof *output->store);
    return output->store != NULL;
}

static void clear(struct pn_output *output)
{
    if (output->store != NULL) {
        if (kept_count < STORES_KEPT_MAX) {
            output->store->next = kept;
            kept = output->store;
            kept_count++;
        } else {
            free(output->store);
        }
    }
    output->store = NULL;
    output->stored = output->first = output->count = output->pending_bytes = 0;
}

bool output_has_room(const struct pn_output *output)
{
    return OUTPUT_BYTES - output->stored >= OUTPUT_ROOM_BYTES && output->count + PIECES_AT_ONCE < OUTPUT_PIECES;
}

bool output_copy(struct pn_output *output, const uint8_t *data, size_t size)
{
    if (!has_store(output) || OUTPUT_BYTES - output->stored < size)
        return false;
    uint8_t *place = output->store->data + output->stored;
    memcpy(place, data, size);
    output->stored += size;
    output->pending_bytes += size;
    struct pn_piece *last = output->count > output->first ? &output->pieces[output->count - 1] : NULL;
    if (last != NULL && last->message == NULL && last->data + last->size == place) {
        last->size += size;
        return true;
    }
    output->pieces[output->count++] = (struct pn_piece){place, size, NULL};
    return true;
}

bool output_refer(struct pn_output *output, struct pn_message *message, const uint8_t *data, size_t size)
{
    if (size <= COPIED_BYTES_MAX)
        return output_copy(output, data, size);
    message->references++;
    output->pieces[output->count++] = (struct pn_piece){data, size, message};
    output->pending_bytes += size;
    return true;
}

void output_written(struct pn_output *output, size_t size)
{
    output->pending_bytes -= size;
    while (size != 0) {
        struct pn_piece *piece = &output->pieces[output->first];
        if (size < piece->size) {
            piece->data += size;
            piece->size -= size;
            return;
        }
        size -= piece->size;
        output->first++;
        if (piece->message != NULL)
            message_release(piece->message);
    }
    if (output->first == output->count)
        clear(output);
}

void output_free(struct pn_output *output)
{
    for (size_t i = output->first; i < output->count; i++)
        if (output->pieces[i].message != NULL)
            message_release(output->pieces[i].message);
    clear(output);
}

void outputs_forget(void)
{
    while (kept != NULL) {
        struct pn_store *store = kept;
        kept = store->next;
        free(store);
    }
    kept_count = 0;
}
