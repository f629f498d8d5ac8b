#include "bytes.h"

#include <stdlib.h>
#include <string.h>

bool bytes_reserve(struct pn_bytes *bytes, size_t more)
{
    if (more > SIZE_MAX / 4 || bytes->size > SIZE_MAX / 4)
        return false;
    size_t needed = bytes->size + more;
    if (needed <= bytes->capacity)
        return true;
    size_t capacity = bytes->capacity ? bytes->capacity : 64;
    while (capacity < needed)
        capacity *= 2;
    uint8_t *data = realloc(bytes->data, capacity);
    if (data == NULL)
        return false;
    bytes->data = data;
    bytes->capacity = capacity;
    return true;
}

bool bytes_append(struct pn_bytes *bytes, const void *data, size_t size)
{
    if (!bytes_reserve(bytes, size))
        return false;
    if (size != 0)
        memcpy(bytes->data + bytes->size, data, size);
    bytes->size += size;
    return true;
}

bool bytes_append_field(struct pn_bytes *bytes, const void *data, size_t size)
{
    if (size > UINT32_MAX || !bytes_reserve(bytes, sizeof(uint32_t) + size))
        return false;
    uint32_t length = (uint32_t)size;
    return bytes_append(bytes, &length, sizeof length) && bytes_append(bytes, data, size);
}

void bytes_drop(struct pn_bytes *bytes, size_t size)
{
    bytes->size -= size;
    if (bytes->size != 0)
        memmove(bytes->data, bytes->data + size, bytes->size);
}

void bytes_free(struct pn_bytes *bytes)
{
    free(bytes->data);
    *bytes = (struct pn_bytes){0};
}

bool field_next(const uint8_t *fields, size_t size, size_t *place, struct pn_field *field)
{
    uint32_t length;
    if (size - *place < sizeof length)
        return false;
    memcpy(&length, fields + *place, sizeof length);
    if (size - *place - sizeof length < length)
        return false;
    *field = (struct pn_field){fields + *place + sizeof length, length};
    *place += sizeof length + length;
    return true;
}
