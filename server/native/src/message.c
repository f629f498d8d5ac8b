#include "message.h"

#include <stdlib.h>

#include "bytes.h"
#include "call.h"
#include "remains.h"

/* Powers of two from 256 bytes; larger ones are the allocator's. */
enum { SMALLEST_BITS = 8, CLASSES = 9, KEPT_MAX = 256 };

static struct {
    struct pn_message *first;
    size_t count;
} kept[CLASSES];

static int class_of(size_t capacity)
{
    for (int one = 0; one < CLASSES; one++)
        if (capacity <= (size_t)1 << (SMALLEST_BITS + one))
            return one;
    return -1;
}

static struct pn_message *allocate(size_t capacity)
{
    struct pn_message *message = malloc(sizeof *message + capacity);
    if (message != NULL)
        *message = (struct pn_message){.capacity = capacity, .references = 1};
    return message;
}

struct pn_message *message_new_elsewhere(size_t size)
{
    return size > SIZE_MAX / 2 ? NULL : allocate(size + PN_PREFIX_BYTES);
}

struct pn_message *message_new(size_t size)
{
    if (size > SIZE_MAX / 2)
        return NULL;
    size_t capacity = size + PN_PREFIX_BYTES;
    int one = class_of(capacity);
    if (one < 0)
        return allocate(capacity);
    struct pn_message *message = kept[one].first;
    if (message == NULL)
        return allocate((size_t)1 << (SMALLEST_BITS + one));
    kept[one].first = message->next;
    kept[one].count--;
    message->next = NULL;
    message->token = 0;
    message->references = 1;
    return message;
}

struct pn_message *message_of(uint8_t *content)
{
    return (struct pn_message *)(void *)(content - PN_PREFIX_BYTES - offsetof(struct pn_message, data));
}

void message_close(struct pn_message *message, size_t length)
{
    message->data[0] = 0;
    message->data[1] = (uint8_t)(length >> 24);
    message->data[2] = (uint8_t)(length >> 16);
    message->data[3] = (uint8_t)(length >> 8);
    message->data[4] = (uint8_t)length;
    message->length = PN_PREFIX_BYTES + length;
}

void message_release(struct pn_message *message)
{
    if (--message->references != 0)
        return;
    int one = class_of(message->capacity);
    if (one < 0 || message->capacity != (size_t)1 << (SMALLEST_BITS + one) || kept[one].count == KEPT_MAX) {
        struct pn_bytes memory = {.data = (uint8_t *)message, .capacity = sizeof *message + message->capacity};
        remains_free(&memory);
        return;
    }
    message->next = kept[one].first;
    kept[one].first = message;
    kept[one].count++;
}

void messages_forget(void)
{
    for (int one = 0; one < CLASSES; one++) {
        while (kept[one].first != NULL) {
            struct pn_message *message = kept[one].first;
            kept[one].first = message->next;
            free(message);
        }
        kept[one].count = 0;
    }
}

uint8_t *call_buffer(size_t size)
{
    struct pn_message *message = message_new(size);
    return message == NULL ? NULL : message->data + PN_PREFIX_BYTES;
}

void call_buffer_free(uint8_t *content)
{
    message_release(message_of(content));
}
