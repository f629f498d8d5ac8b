#include "incoming.h"

#include <nghttp2/nghttp2.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "answer.h"
#include "bridge.h"
#include "connection.h"
#include "grpc.h"
#include "bounds.h"
#include "stream.h"
#include "unread.h"

/* As announced in session.c. */
#define STREAM_WINDOW_BYTES 65535
/* More at once is no faster, and memory for it has to be there. */
#define WINDOW_BYTES_MAX (16 * 1024 * 1024)

/* Python gets a few small messages of a call before it asks: it need not ask for each. */
enum { AHEAD_MESSAGES = 8, AHEAD_BYTES = 8192 };

#define UPLOADING_BYTES_MAX (32u * 1024 * 1024)
#define UPLOAD_NS UINT64_C(1000000000)

static struct pn_stream *resumed;
/* What streams that only hot has are ended with once Python closes them; a size of 0: they are open. */
static struct pn_bytes closing;

static bool is_hot_unary(const struct pn_stream *stream)
{
    return stream->call.method == PN_PREDICT || stream->call.method == PN_MODEL_INFER;
}

static void fail(struct pn_stream *stream, int status, const char *text)
{
    answer_status(stream, status, text, strlen(text), NULL, 0);
}

/* Window --------------------------------------------------------------------------------------------------------- */

/* Lets the client send as much as was taken, where more is wanted. */
static void give_back_window(struct pn_stream *stream)
{
    bool wanted = stream->course == TO_PYTHON || stream->course == HELD || !stream->hot ? stream->hungry : true;
    if (!wanted || stream->owed_bytes == 0 || stream->half_closed || stream->over)
        return;
    nghttp2_session_consume_stream(stream->call.connection->session, stream->id, stream->owed_bytes);
    stream->owed_bytes = 0;
    connection_touch(stream->call.connection);
}

/* Lets the client send the whole of the message that has begun. */
static void widen(struct pn_stream *stream)
{
    if (stream->half_closed || stream->length <= STREAM_WINDOW_BYTES / 2)
        return;
    size_t wanted = stream->length + STREAM_WINDOW_BYTES;
    if (wanted > WINDOW_BYTES_MAX)
        wanted = WINDOW_BYTES_MAX;
    nghttp2_session *session = stream->call.connection->session;
    if ((int32_t)wanted > nghttp2_session_get_stream_effective_local_window_size(session, stream->id))
        nghttp2_session_set_local_window_size(session, NGHTTP2_FLAG_NONE, stream->id, (int32_t)wanted);
    connection_touch(stream->call.connection);
}

/* Messages ------------------------------------------------------------------------------------------------------- */

void incoming_bridge(struct pn_stream *stream)
{
    if (stream->bridge_id != 0)
        return;
    stream->bridge_id = bridge_begin(stream);
    if (stream->bridge_id == 0)
        fail(stream, GRPC_RESOURCE_EXHAUSTED, "no memory");
}

static void to_python(struct pn_stream *stream)
{
    stream->course = TO_PYTHON;
    incoming_bridge(stream);
    if (stream->hungry)
        widen(stream);
}

/* A message holds its block of shared memory from its first byte on. So a connection has few of them at once, and none
 * for long: where its client is slow, the message goes to Python, which takes a block when it is whole. */

static bool may_upload(const struct pn_stream *stream)
{
    size_t uploading_bytes = stream->call.connection->uploading_bytes;
    return uploading_bytes == 0 || uploading_bytes + stream->length <= UPLOADING_BYTES_MAX;
}

static void start_upload(struct pn_stream *stream)
{
    stream->course = TO_HOT;
    stream->uploading_bytes = stream->length;
    stream->call.connection->uploading_bytes += stream->length;
}

void incoming_stop_upload(struct pn_stream *stream)
{
    stream->call.connection->uploading_bytes -= stream->uploading_bytes;
    stream->uploading_bytes = 0;
    timer_clear(&stream->upload);
}

static void begin_message(struct pn_stream *stream)
{
    if (stream->prefix[0] > 1) {
        fail(stream, GRPC_INTERNAL, "invalid flag byte before a message");
        return;
    }
    if (stream->length > limits.message_bytes) {
        char text[96];
        snprintf(text, sizeof text, "SERVER: Received message larger than max (%zu vs. %llu)", stream->length,
                 (unsigned long long)limits.message_bytes);
        fail(stream, GRPC_RESOURCE_EXHAUSTED, text);
        return;
    }
    if (!stream->hot || (is_hot_unary(stream) && stream->prefix[0] != 0)) {
        to_python(stream);
        return;
    }
    if (!unread_has_room(stream)) {
        stream->course = WAITS;
        stream->call.connection->waits_unread = true;
        return;
    }
    if (stream->prefix[0] != 0) {
        to_python(stream);
        return;
    }
    switch (may_upload(stream) ? hot_message_begin(&stream->call, stream->length) : PN_BRIDGE) {
    case PN_MORE:
        start_upload(stream);
        widen(stream);
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

/* No more messages of a stream go to hot, which answers those that it has. */
static void stop_hot(struct pn_stream *stream)
{
    stream->course = TO_NOBODY;
    if (!stream->half_closed_told) {
        stream->half_closed_told = true;
        hot_half_closed(&stream->call);
    }
}

static bool is_hot_stream(const struct pn_stream *stream)
{
    return stream->hot && !is_hot_unary(stream);
}

static void begin_anew(struct pn_stream *stream)
{
    stream->course = IN_PREFIX;
    stream->prefix_size = 0;
    stream->fed = 0;
    if (closing.size != 0 && is_hot_stream(stream) && stream->bridge_id == 0)
        stop_hot(stream);
}

static void deliver(struct pn_stream *stream)
{
    bool small = stream->length <= AHEAD_BYTES && stream->ahead < AHEAD_MESSAGES;
    if (stream->bridge_id == 0 || !(stream->hungry || stream->ahead == 0 || small))
        return;
    if (!bridge_message(stream->bridge_id, &stream->message, stream->prefix[0] == 1)) {
        fail(stream, GRPC_RESOURCE_EXHAUSTED, "no memory");
        return;
    }
    if (is_hot_stream(stream))
        unread_taken(stream);
    stream->ahead++;
    stream->hungry = false;
    begin_anew(stream);
}

static void take_back(struct pn_stream *stream)
{
    incoming_stop_upload(stream);
    if (!bytes_reserve(&stream->message, stream->fed)) {
        fail(stream, GRPC_RESOURCE_EXHAUSTED, "no memory");
        return;
    }
    hot_replay(&stream->call, stream->message.data, stream->fed);
    stream->message.size = stream->fed;
    to_python(stream);
}

static void on_slow_upload(struct pn_timer *timer)
{
    struct pn_stream *stream = (struct pn_stream *)(void *)((char *)timer - offsetof(struct pn_stream, upload));
    if (stream->course != TO_HOT)
        return;
    take_back(stream);
    give_back_window(stream);
}

void incoming_prepare(struct pn_stream *stream)
{
    stream->upload.due = on_slow_upload;
}

static void end_hot_message(struct pn_stream *stream)
{
    incoming_stop_upload(stream);
    switch (hot_message_end(&stream->call)) {
    case PN_TAKEN:
        stream->hot_took = true;
        unread_taken(stream);
        begin_anew(stream);
        if (is_hot_unary(stream))
            stream->course = TO_NOBODY; /* one request is all that such a call has */
        break;
    case PN_BRIDGE:
        take_back(stream);
        break;
    default:
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
        if (verdict == PN_BRIDGE)
            take_back(stream);
        else if (verdict == PN_REFUSE)
            stream->course = TO_NOBODY;
    }
    if (stream->course != TO_HOT)
        return taken;
    if (stream->fed == stream->length)
        end_hot_message(stream);
    else if (stream->upload.place == 0 && !timer_set(&stream->upload, loop_now_ns() + UPLOAD_NS))
        take_back(stream);
    return taken;
}

static size_t fill_python(struct pn_stream *stream, const uint8_t *bytes, size_t size)
{
    size_t left = stream->length - stream->fed;
    size_t taken = size < left ? size : left;
    if (!bytes_append(&stream->message, bytes, taken)) {
        fail(stream, GRPC_RESOURCE_EXHAUSTED, "no memory");
        return size;
    }
    stream->fed += taken;
    if (stream->fed == stream->length) {
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
        case TO_PYTHON:
            if (taken == size && stream->fed != stream->length)
                return taken;
            taken += fill_python(stream, bytes + taken, size - taken);
            break;
        case WAITS:
        case HELD:
            return taken;
        case TO_NOBODY:
            return size;
        }
    }
}

void stream_data(struct pn_stream *stream, const uint8_t *bytes, size_t size)
{
    size_t taken = 0;
    if (stream->pending.size == 0)
        taken = take(stream, bytes, size);
    if (taken != size && !bytes_append(&stream->pending, bytes + taken, size - taken))
        fail(stream, GRPC_RESOURCE_EXHAUSTED, "no memory");
    stream->owed_bytes += taken;
    give_back_window(stream);
}

/* Something changed: goes on with what is pending. */
static void go_on(struct pn_stream *stream)
{
    if (stream->course == HELD)
        deliver(stream);
    size_t taken = take(stream, stream->pending.data, stream->pending.size);
    bytes_drop(&stream->pending, taken);
    if (stream->pending.size == 0)
        bytes_free(&stream->pending);
    stream->owed_bytes += taken;
    give_back_window(stream);
    if (stream->half_closed)
        incoming_half_closed(stream);
}

void stream_read(struct pn_stream *stream, uint64_t count, bool hungry)
{
    stream->ahead -= count < stream->ahead ? count : stream->ahead;
    stream->hungry = hungry;
    if (hungry && stream->course == TO_PYTHON)
        widen(stream);
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
    bytes_free(&closing);
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

/* Ends ------------------------------------------------------------------------------------------------------------ */

static void tell_half_closed(struct pn_stream *stream)
{
    stream->half_closed_told = true;
    /* A call of one request without one: Python has the words for it. */
    if (stream->hot && is_hot_unary(stream) && !stream->hot_took && !stream->over)
        incoming_bridge(stream);
    if (stream->hot && !stream->over)
        hot_half_closed(&stream->call);
    if (stream->bridge_id != 0)
        bridge_half_closed(stream->bridge_id);
}

void incoming_half_closed(struct pn_stream *stream)
{
    if (stream->half_closed_told || stream->pending.size != 0)
        return;
    bool whole = stream->course == TO_NOBODY || (stream->course == IN_PREFIX && stream->prefix_size == 0);
    if (whole)
        tell_half_closed(stream);
    else if (stream->course != WAITS && stream->course != HELD)
        fail(stream, GRPC_INTERNAL, "the client ended the call within a message");
}

static bool hot_owes(const struct pn_stream *stream)
{
    return is_hot_stream(stream) && !stream->hot_done;
}

void incoming_finish(struct pn_stream *stream)
{
    bool python_owes = stream->bridge_id != 0 && !stream->python_done;
    if (stream->over || hot_owes(stream) || python_owes)
        return;
    if (stream->python_done)
        answer_status(stream, stream->status, (const char *)stream->kept_text.data, stream->kept_text.size, NULL, 0);
    else if (closing.size != 0)
        answer_status(stream, GRPC_UNAVAILABLE, (const char *)closing.data, closing.size, NULL, 0);
    else
        answer_status(stream, GRPC_OK, "", 0, NULL, 0);
}

void incoming_python_done(struct pn_stream *stream, int status, const char *text, size_t text_size,
                          const uint8_t *fields, size_t size)
{
    stream->python_done = true;
    if (!hot_owes(stream)) {
        answer_status(stream, status, text, text_size, fields, size);
        return;
    }
    stream->status = status;
    if (!bytes_append(&stream->kept_text, text, text_size) || !bytes_append(&stream->trailers, fields, size))
        connection_break(stream->call.connection);
    stop_hot(stream);
}

void streams_close(const char *text, size_t size)
{
    closing.size = 0;
    if (!bytes_append(&closing, text, size))
        return;
    struct pn_connection *connection = connections_first();
    for (; connection != NULL; connection = connection->next)
        for (struct pn_stream *stream = connection->streams; stream != NULL; stream = stream->next)
            if (is_hot_stream(stream) && (stream->course == IN_PREFIX || stream->course == WAITS) &&
                stream->bridge_id == 0)
                stop_hot(stream);
}
