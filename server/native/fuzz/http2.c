/* libFuzzer: what a client may send. The first bytes say how hot and Python behave, the rest comes over a connection,
 * cut into pieces; behind the greeting of HTTP/2, which is sent for it. Whatever it is, nothing may be left of it. */
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "bounds.h"
#include "bridge.h"
#include "call.h"
#include "connection.h"
#include "loop.h"
#include "message.h"

enum { CHOICES = 16, MESSAGE_BYTES = 64 * 1024 };

static uint8_t choices[CHOICES];
static size_t chosen;
static int hot_calls;

static unsigned choose(unsigned count)
{
    return choices[chosen++ % CHOICES] % count;
}

/* Hot: takes, refuses and gives back as the fuzzer says, and keeps what it was fed to compare. ------------------------ */

struct part {
    uint8_t *bytes;
    size_t size;
    bool half_closed;
    unsigned taken;
};

const struct hot_command hot_commands[] = {{NULL, NULL}};

static struct part *part_of(struct pn_call *call)
{
    return call->hot;
}

enum pn_verdict hot_begin(struct pn_call *call)
{
    if (choose(4) == 0)
        return PN_BRIDGE;
    call->hot = calloc(1, sizeof(struct part));
    hot_calls++;
    if (choose(16) == 0) {
        call_fail(call, 8, "no", 2, NULL, 0);
        return PN_REFUSE;
    }
    return PN_MORE;
}

enum pn_verdict hot_message_begin(struct pn_call *call, size_t length)
{
    struct part *part = part_of(call);
    part->size = 0;
    part->bytes = realloc(part->bytes, length + 1);
    switch (choose(6)) {
    case 0: return PN_BRIDGE;
    case 1: call_resume(call); return PN_WAIT;
    case 2: call_fail(call, 3, "not this", 8, NULL, 0); return PN_REFUSE;
    default: return PN_MORE;
    }
}

enum pn_verdict hot_feed(struct pn_call *call, const uint8_t *bytes, size_t size)
{
    struct part *part = part_of(call);
    memcpy(part->bytes + part->size, bytes, size);
    part->size += size;
    return choose(8) == 0 ? PN_BRIDGE : PN_MORE;
}

static void answer(struct pn_call *call, const uint8_t *bytes, size_t size)
{
    uint8_t *message = call_buffer(size);
    memcpy(message, bytes, size);
    call_answer(call, message, size);
}

static void owe_nothing(struct pn_call *call)
{
    if (part_of(call)->half_closed)
        call_done(call);
}

enum pn_verdict hot_message_end(struct pn_call *call)
{
    struct part *part = part_of(call);
    if (choose(5) == 0)
        return PN_BRIDGE;
    part->taken++;
    answer(call, part->bytes, part->size);
    return PN_TAKEN;
}

void hot_replay(struct pn_call *call, uint8_t *to, size_t fed)
{
    struct part *part = part_of(call);
    if (fed != part->size)
        abort();
    if (fed != 0)
        memcpy(to, part->bytes, fed);
}

void hot_half_closed(struct pn_call *call)
{
    if (part_of(call)->half_closed)
        abort();
    part_of(call)->half_closed = true;
    if (call->method == PN_PREDICT_STREAM || call->method == PN_MODEL_STREAM_INFER)
        owe_nothing(call);
}

bool hot_bridged_answer(struct pn_call *call, uint8_t *message, size_t length)
{
    if (choose(2))
        return false;
    call_answer(call, message, length);
    return true;
}

void hot_gone(struct pn_call *call)
{
    free(part_of(call)->bytes);
    free(part_of(call));
    hot_calls--;
}

void hot_round(void) {}
void hot_round_over(void) {}
void hot_completions(void) {}
void hot_start(void) {}
void hot_stop(void) {}
void hot_timer(void) {}

/* Python: reads, answers, and ends as the fuzzer says. ---------------------------------------------------------------- */

static void tell(enum pn_command_kind kind, uint64_t id, uint64_t number, uint64_t other)
{
    struct pn_command *command = command_new(kind, id);
    command->number = number;
    command->other_number = other;
    if (kind == COMMAND_MESSAGE || kind == COMMAND_ANSWER) {
        command->message = message_new_elsewhere(3);
        memcpy(command->message->data + PN_PREFIX_BYTES, "yes", 3);
        message_close(command->message, 3);
        command->message->token = choose(2);
    }
    bridge_submit(command);
}

static void be_python(void)
{
    struct pn_event *event = bridge_take_events();
    while (event != NULL) {
        struct pn_event *next = event->next;
        switch (event->kind) {
        case EVENT_BEGAN:
            if (choose(3))
                tell(COMMAND_READ, event->id, 0, 1);
            break;
        case EVENT_MESSAGE:
            tell(choose(2) ? COMMAND_MESSAGE : COMMAND_ANSWER, event->id, 0, 0);
            tell(COMMAND_READ, event->id, 1, choose(2));
            break;
        case EVENT_HALF_CLOSED:
            tell(COMMAND_STATUS, event->id, choose(17), 0);
            break;
        default:
            break;
        }
        event_free(event);
        event = next;
    }
}

/* A connection. ------------------------------------------------------------------------------------------------------- */

static void turn(int client)
{
    static uint8_t ignored[65536];
    loop_round(0);
    be_python();
    loop_round(0);
    while (recv(client, ignored, sizeof ignored, MSG_DONTWAIT) > 0)
        continue;
}

static void talk(const uint8_t *data, size_t size)
{
    static const char greeting[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0";
    static const struct sockaddr_storage nobody = {.ss_family = AF_UNIX};
    int ends[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, ends) != 0)
        abort();
    connection_open(ends[0], false, &nobody);
    send(ends[1], greeting, sizeof greeting - 1, MSG_NOSIGNAL);
    while (size != 0) {
        size_t part = choose(4) == 0 ? 1 + choose(64) : 16384;
        if (part > size)
            part = size;
        if (send(ends[1], data, part, MSG_NOSIGNAL) < 0)
            break;
        data += part;
        size -= part;
        turn(ends[1]);
    }
    turn(ends[1]);
    close(ends[1]);
    for (int i = 0; i < 100 && connections_count() != 0; i++)
        turn(ends[1]);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < CHOICES)
        return 0;
    memcpy(choices, data, CHOICES);
    chosen = 0;
    limits = (struct pn_limits){
        .message_bytes = MESSAGE_BYTES, .metadata_bytes = 4096, .unread_bytes = 1 << 20, .streams = 100, .connections = 10};
    if (loop_open() != NULL)
        abort();
    talk(data + CHOICES, size - CHOICES);
    /* Ends are told to all, and nothing goes on behind a client that has gone. */
    if (connections_count() != 0 || hot_calls != 0)
        abort();
    bridge_stop();
    loop_close();
    return 0;
}
