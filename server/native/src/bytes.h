/* Bytes that grow. */
#ifndef PN_BYTES_H
#define PN_BYTES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct pn_bytes {
    uint8_t *data;
    size_t size;
    size_t capacity;
};

/* False: no memory, and nothing was changed. */
bool bytes_reserve(struct pn_bytes *bytes, size_t more);
bool bytes_append(struct pn_bytes *bytes, const void *data, size_t size);
/* Metadata are pairs of such fields, a name and a value: a u32 of the size in the machine's order, then the bytes. */
bool bytes_append_field(struct pn_bytes *bytes, const void *data, size_t size);
/* Drops the first `size`. */
void bytes_drop(struct pn_bytes *bytes, size_t size);
void bytes_free(struct pn_bytes *bytes);

struct pn_field {
    const uint8_t *data;
    size_t size;
};
/* The field at *place, which moves behind it. False at the end, and where the rest is no whole field. */
bool field_next(const uint8_t *fields, size_t size, size_t *place, struct pn_field *field);

#endif
