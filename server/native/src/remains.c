#include "remains.h"

#include <stdlib.h>

enum { PIECE_BYTES = 1024 * 1024 };

/* Stands in the memory that it is about. */
struct remains {
    struct remains *next;
    size_t size;
};

static struct remains *first;

void remains_free(struct pn_bytes *bytes)
{
    struct remains *large = (struct remains *)(void *)bytes->data;
    if (bytes->capacity <= PIECE_BYTES) {
        bytes_free(bytes);
        return;
    }
    *large = (struct remains){first, bytes->capacity};
    first = large;
    *bytes = (struct pn_bytes){0};
}

void remains_shrink(void)
{
    struct remains *large = first;
    if (large == NULL)
        return;
    first = large->next;
    large->size -= large->size > PIECE_BYTES ? PIECE_BYTES : 0;
    struct remains *smaller = large->size > PIECE_BYTES ? realloc(large, large->size) : NULL;
    if (smaller == NULL) {
        free(large);
        return;
    }
    first = smaller;
}

bool remains_left(void)
{
    return first != NULL;
}

void remains_forget(void)
{
    while (first != NULL) {
        struct remains *large = first;
        first = large->next;
        free(large);
    }
}
