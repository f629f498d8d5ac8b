#include "incoming.h"

#include <nghttp2/nghttp2.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "answer.h"
#include "bounds.h"
#include "bridge.h"
#include "compressed.h"
#include "connection.h"
#include "ending.h"
#include "grpc.h"
#include "stream.h"
#include "unread.h"
#include "upload.h"

/* Python gets a few small messages of a call before it asks: it need not ask for each. */
enum { AHEAD_MESSAGES = 8, AHEAD_BYTES = 8192 };

static struct pn_stream *resumed;

void incoming_bridge(struct pn_stream *stream)
{
    if (stream->bridge_id != 0)
        return;
    if (bridge_is_full()) {
        answer_failure(stream, GRPC_RESOURCE_EXHAUSTED, "too many calls wait for the front end");
        return;
    }
    stream->bridge_id = bridge_begin(stream);
    if (stream->bridge_id == 0)
        answer_failure(stream, GRPC_RESOURCE_EXHAUSTED, "no memory");
}

static void to_python(struct pn_stream *stream)
{
    stream->course = TO_PYTHON;
    incoming_bridge(stream);
    if (stream->hungry)
        upload_widen(stream);
}

static void begin_message(struct pn_stream *stream)
{
    if (stream->prefix[0] > 1) {
        answer_failure(stream, GRPC_INTERNAL, "invalid flag byte before a message");
        return;
    }
    if (stream->length > limits.message_bytes) {
        /* Python may have a reason of its own to end a call that it has not read from, and that goes first. */
        if (!stream->hot && !stream->hungry) {
            stream->course = WAITS;
            return;
        }
        char text[96];
        snprintf(text, sizeof text, "SERVER: Received message larger than max (%zu vs. %llu)", stream->length,
                 (unsigned long long)limits.message_bytes);
        answer_failure(stream, GRPC_RESOURCE_EXHAUSTED, text);
        return;
    }
    if (!stream->hot) {
        to_python(stream);
        return;
    }
    if (!unread_has_room(stream)) {
        stream->course = WAITS;
        stream->call.connection->waits_unread = true;
        return;
    }
    if (stream->prefix[0] != 0 && compressed_may_be_hot(stream)) {
        stream->course = TO_INFLATE;
        return;
    }
    if (stream->prefix[0] != 0 || !upload_may_begin(stream)) {
        hot_pass(&stream->call, stream->prefix[0] != 0);
        to_python(stream);
        return;
    }
    switch (hot_message_begin(&stream->call, stream->length)) {
    case PN_MORE:
        upload_begin(stream);
        upload_widen(stream);
        break;
    case PN_WAIT:
        stream->course = WAITS;
        break;
    case PN_REFUSE:
        stream->course = TO_NOBODY;
        break;
    default:
        to_python(stream);
    }
}

static void begin_anew(struct pn_stream *stream)
{
    stream->course = IN_PREFIX;
    stream->prefix_size = 0;
    stream->fed = 0;
    if (ending_closes(stream))
        ending_stop_hot(stream);
}

static void deliver(struct pn_stream *stream)
{
    bool small = stream->length <= AHEAD_BYTES && stream->ahead < AHEAD_MESSAGES;
    if (stream->bridge_id == 0 || !(stream->hungry || stream->ahead == 0 || small))
        return;
    if (!bridge_message(stream->bridge_id, &stream->message, stream->prefix[0] == 1)) {
        answer_failure(stream, GRPC_RESOURCE_EXHAUSTED, "no memory");
        return;
    }
    if (stream_is_hot_stream(stream))
        unread_taken(stream);
    stream->ahead++;
    stream->hungry = false;
    begin_anew(stream);
}

void incoming_take_back(struct pn_stream *stream)
{
    upload_end(stream);
    if (!bytes_reserve(&stream->message, stream->fed)) {
        answer_failure(stream, GRPC_RESOURCE_EXHAUSTED, "no memory");
        return;
    }
    hot_replay(&stream->call, stream->message.data, stream->fed);
    stream->message.size = stream->fed;
    to_python(stream);
}

static void hot_has_taken(struct pn_stream *stream)
{
    stream->hot_took = true;
    unread_taken(stream);
    begin_anew(stream);
    if (stream_is_hot_unary(stream))
        stream->course = TO_NOBODY; /* one request is all that such a call has */
}

static void end_hot_message(struct pn_stream *stream)
{
    upload_end(stream);
    switch (hot_message_end(&stream->call)) {
    case PN_TAKEN:
        hot_has_taken(stream);
        break;
    case PN_BRIDGE:
        incoming_take_back(stream);
        break;
    default:
        stream->course = TO_NOBODY;
    }
}

static void end_compressed(struct pn_stream *stream)
{
    switch (compressed_offer(stream)) {
    case PN_TAKEN:
        bytes_free(&stream->message);
        hot_has_taken(stream);
        break;
    case PN_BRIDGE:
        to_python(stream);
        break;
    default:
        bytes_free(&stream->message);
        stream->course = TO_NOBODY;
    }
}

static size_t fill_prefix(struct pn_stream *stream, const uint8_t *bytes, size_t size)
{
    size_t wanted = PN_PREFIX_BYTES - stream->prefix_size;
    size_t taken = size < wanted ? size : wanted;
    memcpy(stream->prefix + stream->prefix_size, bytes, taken);
    stream->prefix_size += taken;
    if (stream->prefix_size == PN_PREFIX_BYTES) {
        const uint8_t *prefix = stream->prefix;
        stream->length = (size_t)prefix[1] << 24 | (size_t)prefix[2] << 16 | (size_t)prefix[3] << 8 | prefix[4];
        begin_message(stream);
    }
    return taken;
}

static size_t fill_hot(struct pn_stream *stream, const uint8_t *bytes, size_t size)
{
    size_t left = stream->length - stream->fed;
    size_t taken = size < left ? size : left;
    if (taken != 0) {
        stream->fed += taken;
        enum pn_verdict verdict = hot_feed(&stream->call, bytes, taken);
        if (verdict == PN_BRIDGE) {
            incoming_take_back(stream);
        } else if (verdict == PN_REFUSE) {
            upload_end(stream);
            stream->course = TO_NOBODY;
        }
    }
    if (stream->course != TO_HOT)
        return taken;
    if (stream->fed == stream->length)
        end_hot_message(stream);
    return taken;
}

/* Python's, or one to be inflated. */
static size_t fill_whole(struct pn_stream *stream, const uint8_t *bytes, size_t size)
{
    size_t left = stream->length - stream->fed;
    size_t taken = size < left ? size : left;
    if (!bytes_append(&stream->message, bytes, taken)) {
        answer_failure(stream, GRPC_RESOURCE_EXHAUSTED, "no memory");
        return size;
    }
    stream->fed += taken;
    if (stream->fed != stream->length)
        return taken;
    if (stream->course == TO_INFLATE) {
        end_compressed(stream);
    } else {
        stream->course = HELD;
        deliver(stream);
    }
    return taken;
}

/* Takes what is wanted of the bytes now, and gives how many these are. */
static size_t take(struct pn_stream *stream, const uint8_t *bytes, size_t size)
{
    size_t taken = 0;
    for (;;) {
        switch (stream->course) {
        case IN_PREFIX:
            if (taken == size)
                return taken;
            taken += fill_prefix(stream, bytes + taken, size - taken);
            break;
        case TO_HOT:
            if (taken == size && stream->fed != stream->length)
                return taken;
            taken += fill_hot(stream, bytes + taken, size - taken);
            break;
        case TO_INFLATE:
        case TO_PYTHON:
            if (taken == size && stream->fed != stream->length)
                return taken;
            taken += fill_whole(stream, bytes + taken, size - taken);
            break;
        case WAITS:
        case HELD:
            return taken;
        case TO_NOBODY:
            return size;
        }
    }
}

/* So many bytes were taken, and what there is to take is taken. */
static void taken_for_now(struct pn_stream *stream, size_t taken)
{
    if (stream->course == TO_HOT && !upload_lasts(stream))
        incoming_take_back(stream);
    stream->owed_bytes += taken;
    upload_give_back_window(stream);
}

void stream_data(struct pn_stream *stream, const uint8_t *bytes, size_t size)
{
    size_t taken = 0;
    if (stream->pending.size == 0)
        taken = take(stream, bytes, size);
    if (taken != size && !bytes_append(&stream->pending, bytes + taken, size - taken))
        answer_failure(stream, GRPC_RESOURCE_EXHAUSTED, "no memory");
    taken_for_now(stream, taken);
}

/* Something changed: goes on with what is pending. */
static void go_on(struct pn_stream *stream)
{
    if (stream->course == HELD)
        deliver(stream);
    /* Also where nothing is pending: a message of no bytes goes on without any. */
    static const uint8_t nothing[1];
    const uint8_t *bytes = stream->pending.size != 0 ? stream->pending.data : nothing;
    size_t taken = take(stream, bytes, stream->pending.size);
    bytes_drop(&stream->pending, taken);
    if (stream->pending.size == 0)
        bytes_free(&stream->pending);
    taken_for_now(stream, taken);
    if (stream->half_closed)
        ending_half_closed(stream);
}

void stream_read(struct pn_stream *stream, uint64_t count, bool hungry)
{
    stream->ahead -= count < stream->ahead ? count : stream->ahead;
    stream->hungry = hungry;
    if (hungry && stream->course == WAITS && !stream->hot)
        begin_message(stream);
    if (hungry && stream->course == TO_PYTHON)
        upload_widen(stream);
    go_on(stream);
}

void call_resume(struct pn_call *call)
{
    struct pn_stream *stream = (struct pn_stream *)(void *)call;
    if (stream->resumed)
        return;
    stream->resumed = true;
    stream->next_resumed = resumed;
    resumed = stream;
}

bool streams_wait_to_resume(void)
{
    return resumed != NULL;
}

void streams_resume(void)
{
    while (resumed != NULL) {
        struct pn_stream *stream = resumed;
        resumed = stream->next_resumed;
        stream->resumed = false;
        if (stream->course != WAITS)
            continue;
        begin_message(stream);
        /* Still not: hot says when. */
        if (stream->course != WAITS)
            go_on(stream);
    }
}

void incoming_forget_all(void)
{
    resumed = NULL;
}

void incoming_forget(struct pn_stream *stream)
{
    struct pn_stream **place = &resumed;
    while (stream->resumed && *place != NULL) {
        if (*place == stream) {
            *place = stream->next_resumed;
            stream->resumed = false;
        } else {
            place = &(*place)->next_resumed;
        }
    }
}

