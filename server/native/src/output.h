/* What a connection has to write: small things copied one behind the other, large ones by reference. */
#ifndef PN_OUTPUT_H
#define PN_OUTPUT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "message.h"

/* Larger than what nghttp2 gives at once. */
enum { OUTPUT_BYTES = 65536, OUTPUT_PIECES = 64, OUTPUT_ROOM_BYTES = 17 * 1024, COPIED_BYTES_MAX = 4096 };

struct pn_piece {
    const uint8_t *data;
    size_t size;
    struct pn_message *message; /* holds the data; NULL: they were copied */
};

struct pn_store;

struct pn_output {
    struct pn_store *store; /* NULL while there is nothing to write */
    size_t stored;          /* bytes of it in use */
    size_t first;           /* pieces written */
    size_t count;           /* pieces, those written included */
    size_t pending_bytes;
    struct pn_piece pieces[OUTPUT_PIECES];
};

/* Room for one more of what nghttp2 gives, and for a large piece. */
bool output_has_room(const struct pn_output *output);
/* False: no memory. */
bool output_copy(struct pn_output *output, const uint8_t *data, size_t size);
/* Part of a message, copied if it is small, else referenced. */
bool output_refer(struct pn_output *output, struct pn_message *message, const uint8_t *data, size_t size);
/* `size` bytes were written. */
void output_written(struct pn_output *output, size_t size);
void output_free(struct pn_output *output);
void outputs_forget(void);

#endif
