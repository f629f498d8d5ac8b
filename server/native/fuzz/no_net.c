/* The network half, for fuzzers of the inference half: nobody is there, and everything is counted. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "no_net.h"

struct no_net no_net;

uint8_t *call_buffer(size_t size)
{
    no_net.buffers++;
    return malloc(size ? size : 1);
}

void call_buffer_free(uint8_t *message)
{
    no_net.buffers--;
    free(message);
}

void call_answer(struct pn_call *call, uint8_t *message, size_t length)
{
    (void)call;
    /* Every byte of it was written. */
    for (size_t at = 0; at < length; at++)
        no_net.sum += message[at];
    no_net.answers++;
    call_buffer_free(message);
}

void call_fail(struct pn_call *call, int status, const char *text, size_t text_size, const uint8_t *metadata,
               size_t metadata_size)
{
    (void)call, (void)status, (void)text, (void)text_size, (void)metadata, (void)metadata_size;
    no_net.failures++;
}

void call_done(struct pn_call *call) { (void)call; }
void call_resume(struct pn_call *call) { (void)call; }

const char *call_metadata(const struct pn_call *call, const char *name, size_t *size)
{
    (void)call, (void)name;
    *size = 0;
    return NULL;
}

const uint8_t *call_fields(const struct pn_call *call, size_t *size)
{
    (void)call;
    *size = 0;
    return NULL;
}

const uint8_t *call_identity(const struct pn_call *call, size_t *size) { return call_fields(call, size); }

void call_peer(const struct pn_call *call, char *text, size_t room)
{
    (void)call;
    snprintf(text, room, "unix:");
}

bool loop_watch_completions(int descriptor) { return descriptor >= 0; }
void loop_wake_hot_at(uint64_t at_ns) { (void)at_ns; }
uint64_t loop_now_ns(void) { return ++no_net.now_ns; }

bool bridge_hot_event(uint32_t kind, const uint8_t *bytes, size_t size)
{
    for (size_t at = 0; at < size; at++)
        no_net.sum += bytes[at];
    no_net.events++;
    if (kind == 1 && size >= 8)
        memcpy(no_net.handed, bytes, sizeof no_net.handed);
    return true;
}

void no_net_do(const char *name, const void *arguments, size_t size)
{
    for (const struct hot_command *command = hot_commands; command->name; command++) {
        if (strcmp(command->name, name) != 0)
            continue;
        struct hot_result result = {NULL, 0};
        no_net.error = command->run(arguments, size, &result);
        free(result.bytes);
        return;
    }
    abort();
}

void packed_u32(struct packed *packed, uint32_t value) { packed_bytes(packed, &value, sizeof value); }
void packed_u64(struct packed *packed, uint64_t value) { packed_bytes(packed, &value, sizeof value); }

void packed_bytes(struct packed *packed, const void *bytes, size_t size)
{
    if (size > sizeof packed->bytes - packed->size)
        abort();
    if (size)
        memcpy(packed->bytes + packed->size, bytes, size);
    packed->size += size;
}

void packed_text(struct packed *packed, const char *text)
{
    packed_u32(packed, (uint32_t)strlen(text));
    packed_bytes(packed, text, strlen(text));
}
