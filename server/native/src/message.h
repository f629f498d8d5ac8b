/* Messages on their way out: counted references, since what is written to a socket may outlive its call. */
#ifndef PN_MESSAGE_H
#define PN_MESSAGE_H

#include <stddef.h>
#include <stdint.h>

enum { PN_PREFIX_BYTES = 5 };

struct pn_message {
    struct pn_message *next; /* of its stream's queue, or of the free ones of its size */
    size_t capacity;         /* of data */
    size_t length;           /* of the message, gRPC's prefix included */
    uint64_t token;          /* of Python's, told when it is written; 0 for none */
    uint32_t references;
    uint8_t data[]; /* prefix, then what call_buffer gives */
};

/* NULL: no memory. Pooled ones belong to the loop's thread. */
struct pn_message *message_new(size_t size);
/* Of any thread; freed like the others, on the loop's. */
struct pn_message *message_new_elsewhere(size_t size);
struct pn_message *message_of(uint8_t *content);
/* Writes gRPC's prefix for `length` bytes of content. */
void message_close(struct pn_message *message, size_t length);
void message_release(struct pn_message *message);
/* Frees what is kept for later. */
void messages_forget(void);

#endif
