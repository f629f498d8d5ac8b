#include "bridge.h"

#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "commands.h"
#include "connection.h"
#include "ids.h"
#include "loop.h"
#include "message.h"
#include "stream.h"
#include "tls.h"

struct queue_of_events {
    struct pn_event *first;
    struct pn_event *last;
};

struct queue_of_commands {
    struct pn_command *first;
    struct pn_command *last;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t done = PTHREAD_COND_INITIALIZER;
static struct queue_of_events shared_events;
static struct queue_of_commands shared_commands;
/* The loop is gone: commands are answered by those who give them. */
static bool closed = true;
static const char ended[] = "the loop has ended";

/* A call may end, by its deadline, before Python has looked at it, and make room for the next one on its connection: so
 * what waits for Python is bounded by itself. */
enum { EVENTS_AT_ONCE = 256 };
#define BEGUN_BYTES_MAX (UINT64_C(32) * 1024 * 1024)
#define CALL_BYTES UINT64_C(1024) /* of one without metadata, what Python makes of it included */
static uint64_t begun_bytes;  /* of calls that Python was told of ... */
static _Atomic uint64_t taken_bytes; /* ... and those of them that it has taken; both only grow */

/* Of this round, not shared yet. */
static struct queue_of_events events;
static int event_descriptor = -1;
static struct pn_watch commands_watch = {.descriptor = -1};
static bool has_commands;

static void on_commands(struct pn_watch *watch, uint32_t ready)
{
    (void)ready;
    uint64_t count;
    if (read(watch->descriptor, &count, sizeof count) == sizeof count)
        has_commands = true;
}

static void wake(int descriptor)
{
    uint64_t one = 1;
    /* It fails only when the counter is at its end, and then it is awake. */
    ssize_t ignored = write(descriptor, &one, sizeof one);
    (void)ignored;
}

const char *bridge_open(void)
{
    event_descriptor = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    commands_watch = (struct pn_watch){eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), on_commands};
    if (event_descriptor < 0 || commands_watch.descriptor < 0)
        return "eventfd";
    closed = false;
    return loop_watch(&commands_watch, EPOLLIN) ? NULL : "epoll_ctl";
}

/* Events ---------------------------------------------------------------------------------------------------------- */

static struct pn_event *event_new(enum pn_event_kind kind, uint64_t id)
{
    struct pn_event *event = calloc(1, sizeof *event);
    if (event == NULL)
        return NULL;
    event->kind = kind;
    event->id = id;
    return event;
}

void event_free(struct pn_event *event)
{
    bytes_free(&event->one);
    bytes_free(&event->other);
    bytes_free(&event->third);
    bytes_free(&event->fourth);
    free(event);
}

static void push(struct pn_event *event)
{
    if (events.last != NULL)
        events.last->next = event;
    else
        events.first = event;
    events.last = event;
}

static uint64_t bytes_of_begun(const struct pn_event *event)
{
    return CALL_BYTES + event->one.size + event->other.size + event->fourth.size;
}

bool bridge_is_full(void)
{
    return begun_bytes - atomic_load_explicit(&taken_bytes, memory_order_relaxed) > BEGUN_BYTES_MAX;
}

uint64_t bridge_begin(struct pn_stream *stream)
{
    char peer[PN_PEER_BYTES];
    connection_peer(stream->call.connection, peer, sizeof peer);
    struct pn_event *event = event_new(EVENT_BEGAN, 0);
    if (event == NULL)
        return 0;
    event->number = stream->call.deadline_ns;
    bool whole = bytes_append(&event->one, stream->path.data, stream->path.size) &&
                 bytes_append(&event->other, stream->metadata.data, stream->metadata.size) &&
                 bytes_append(&event->third, peer, strlen(peer)) && tls_identify(stream->call.connection) &&
                 bytes_append(&event->fourth, stream->call.connection->identity.data,
                              stream->call.connection->identity.size);
    event->id = whole ? id_new(stream) : 0;
    if (event->id == 0) {
        event_free(event);
        return 0;
    }
    begun_bytes += bytes_of_begun(event);
    push(event);
    return event->id;
}

bool bridge_message(uint64_t id, struct pn_bytes *message, bool compressed)
{
    struct pn_event *event = event_new(EVENT_MESSAGE, id);
    if (event == NULL)
        return false;
    event->number = compressed;
    event->one = *message;
    *message = (struct pn_bytes){0};
    push(event);
    return true;
}

/* Without memory for so little nothing can go on, and nobody may wait for what never comes. */
static struct pn_event *small_event(enum pn_event_kind kind, uint64_t id)
{
    struct pn_event *event = event_new(kind, id);
    if (event == NULL)
        abort();
    return event;
}

void bridge_half_closed(uint64_t id)
{
    push(small_event(EVENT_HALF_CLOSED, id));
}

void bridge_written(uint64_t id, uint64_t token)
{
    struct pn_event *event = small_event(EVENT_WRITTEN, id);
    event->number = token;
    push(event);
}

void bridge_gone(uint64_t id)
{
    id_free(id);
    push(small_event(EVENT_GONE, id));
}

void bridge_empty(void)
{
    push(small_event(EVENT_EMPTY, 0));
}

bool bridge_hot_event(uint32_t kind, const uint8_t *bytes, size_t size)
{
    struct pn_event *event = event_new(EVENT_HOT, 0);
    if (event == NULL)
        return false;
    event->number = kind;
    if (!bytes_append(&event->one, bytes, size)) {
        event_free(event);
        return false;
    }
    push(event);
    return true;
}

void bridge_notify(void)
{
    if (events.first == NULL)
        return;
    pthread_mutex_lock(&lock);
    bool asleep = shared_events.first == NULL;
    if (asleep)
        shared_events = events;
    else {
        shared_events.last->next = events.first;
        shared_events.last = events.last;
    }
    pthread_mutex_unlock(&lock);
    events = (struct queue_of_events){0};
    if (asleep)
        wake(event_descriptor);
}

int bridge_event_descriptor(void)
{
    return event_descriptor;
}

struct pn_event *bridge_take_events(void)
{
    uint64_t count;
    /* Before the queue is looked at, so that nothing that comes later is slept through. */
    ssize_t ignored = read(event_descriptor, &count, sizeof count);
    (void)ignored;
    uint64_t bytes = 0;
    struct pn_event *last = NULL;
    pthread_mutex_lock(&lock);
    struct pn_event *first = shared_events.first, *next = first;
    for (int taken = 0; next != NULL && taken < EVENTS_AT_ONCE; taken++) {
        bytes += next->kind == EVENT_BEGAN ? bytes_of_begun(next) : 0;
        last = next;
        next = next->next;
    }
    shared_events.first = next;
    if (next == NULL)
        shared_events.last = NULL;
    pthread_mutex_unlock(&lock);
    if (last != NULL)
        last->next = NULL;
    atomic_fetch_add_explicit(&taken_bytes, bytes, memory_order_relaxed);
    if (next != NULL)
        wake(event_descriptor);
    return first;
}

/* Commands -------------------------------------------------------------------------------------------------------- */

struct pn_command *command_new(enum pn_command_kind kind, uint64_t id)
{
    struct pn_command *command = calloc(1, sizeof *command);
    if (command != NULL) {
        command->kind = kind;
        command->id = id;
    }
    return command;
}

void command_free(struct pn_command *command)
{
    bytes_free(&command->one);
    bytes_free(&command->other);
    free(command->message);
    free(command->answer.bytes);
    free(command);
}

/* False: the loop has ended. */
static bool enqueue(struct pn_command *command)
{
    pthread_mutex_lock(&lock);
    if (closed) {
        pthread_mutex_unlock(&lock);
        return false;
    }
    bool asleep = shared_commands.first == NULL;
    if (asleep)
        shared_commands.first = command;
    else
        shared_commands.last->next = command;
    shared_commands.last = command;
    pthread_mutex_unlock(&lock);
    if (asleep)
        wake(commands_watch.descriptor);
    return true;
}

void bridge_submit(struct pn_command *command)
{
    if (!enqueue(command))
        command_free(command);
}

void bridge_do(struct pn_command *command)
{
    command->waited_for = true;
    if (!enqueue(command)) {
        command->error = ended;
        return;
    }
    pthread_mutex_lock(&lock);
    while (!command->done)
        pthread_cond_wait(&done, &lock);
    pthread_mutex_unlock(&lock);
}

static void finish(struct pn_command *command)
{
    if (!command->waited_for) {
        command_free(command);
        return;
    }
    pthread_mutex_lock(&lock);
    command->done = true;
    pthread_cond_broadcast(&done);
    pthread_mutex_unlock(&lock);
}

static struct pn_command *take_commands(bool last)
{
    pthread_mutex_lock(&lock);
    struct pn_command *first = shared_commands.first;
    shared_commands = (struct queue_of_commands){0};
    if (last)
        closed = true;
    pthread_mutex_unlock(&lock);
    return first;
}

void bridge_run_commands(void)
{
    if (!has_commands)
        return;
    has_commands = false;
    struct pn_command *command = take_commands(false);
    while (command != NULL) {
        struct pn_command *next = command->next;
        command_run(command);
        finish(command);
        command = next;
    }
}

void bridge_stop(void)
{
    struct pn_command *command = take_commands(true);
    while (command != NULL) {
        struct pn_command *next = command->next;
        command->error = ended;
        finish(command);
        command = next;
    }
}

static void free_events(struct pn_event *event)
{
    while (event != NULL) {
        struct pn_event *next = event->next;
        event_free(event);
        event = next;
    }
}

void bridge_close(void)
{
    free_events(shared_events.first);
    free_events(events.first);
    shared_events = events = (struct queue_of_events){0};
    begun_bytes = 0;
    atomic_store_explicit(&taken_bytes, 0, memory_order_relaxed);
    ids_forget();
    close(event_descriptor);
    close(commands_watch.descriptor);
    event_descriptor = commands_watch.descriptor = -1;
}
