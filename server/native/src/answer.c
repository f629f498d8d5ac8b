#include "answer.h"

#include <nghttp2/nghttp2.h>
#include <stdio.h>
#include <string.h>

#include "bridge.h"
#include "connection.h"
#include "grpc.h"
#include "stream.h"
#include "unread.h"

/* Trailers of one call: more than any adapter gives. */
enum { FIELDS_MAX = 64 };

enum { NO_COPY = NGHTTP2_NV_FLAG_NO_COPY_NAME | NGHTTP2_NV_FLAG_NO_COPY_VALUE };

/* A header of two literals, which stay where they are. */
#define LITERAL(name, value) header(name, sizeof(name) - 1, value, sizeof(value) - 1, NO_COPY)

static nghttp2_nv header(const void *name, size_t name_size, const void *value, size_t value_size, uint8_t flags)
{
    return (nghttp2_nv){(uint8_t *)(uintptr_t)name, (uint8_t *)(uintptr_t)value, name_size, value_size, flags};
}

static nghttp2_nv pair(const void *name, size_t name_size, const void *value, size_t value_size)
{
    return header(name, name_size, value, value_size, NGHTTP2_NV_FLAG_NONE);
}

static size_t add_fields(nghttp2_nv *headers, size_t count, const uint8_t *fields, size_t size)
{
    size_t place = 0;
    struct pn_field name, value;
    while (count < FIELDS_MAX && field_next(fields, size, &place, &name) && field_next(fields, size, &place, &value))
        headers[count++] = pair(name.data, name.size, value.data, value.size);
    return count;
}

static nghttp2_session *session_of(const struct pn_stream *stream)
{
    return stream->call.connection->session;
}

/* The session has no memory: the connection cannot go on. */
static void check(struct pn_stream *stream, int result)
{
    if (result != 0 && nghttp2_is_fatal(result))
        connection_break(stream->call.connection);
    else
        connection_touch(stream->call.connection);
}

static size_t add_status(struct pn_stream *stream, nghttp2_nv *headers, size_t count, char number[16])
{
    if (stream->status == GRPC_OK) {
        headers[count++] = LITERAL("grpc-status", "0");
    } else {
        int size = snprintf(number, 16, "%d", stream->status);
        headers[count++] = pair("grpc-status", 11, number, (size_t)size);
    }
    if (stream->text.size != 0)
        headers[count++] = pair("grpc-message", 12, stream->text.data, stream->text.size);
    return add_fields(headers, count, stream->trailers.data, stream->trailers.size);
}

static void submit_trailers(struct pn_stream *stream)
{
    nghttp2_nv headers[FIELDS_MAX];
    char number[16];
    size_t count = add_status(stream, headers, 0, number);
    nghttp2_submit_trailer(session_of(stream), stream->id, headers, count);
}

static size_t queued_bytes(const struct pn_stream *stream, size_t enough)
{
    size_t size = 0;
    const struct pn_message *message = stream->first;
    for (; message != NULL && size < enough + stream->first_written; message = message->next)
        size += message->length;
    return size - (stream->first == NULL ? 0 : stream->first_written);
}

/* The session asks how much of `room` bytes there is to send. */
static ssize_t offer(nghttp2_session *session, int32_t id, uint8_t *buffer, size_t room, uint32_t *flags,
                     nghttp2_data_source *source, void *user_data)
{
    (void)session;
    (void)id;
    (void)buffer;
    (void)user_data;
    struct pn_stream *stream = source->ptr;
    size_t size = queued_bytes(stream, room + 1);
    if (size == 0 && !stream->over) {
        stream->deferred = true;
        return NGHTTP2_ERR_DEFERRED;
    }
    *flags |= NGHTTP2_DATA_FLAG_NO_COPY;
    if (size <= room && stream->over) {
        *flags |= NGHTTP2_DATA_FLAG_EOF | NGHTTP2_DATA_FLAG_NO_END_STREAM;
        submit_trailers(stream);
    }
    return (ssize_t)(size < room ? size : room);
}

static void written(struct pn_stream *stream)
{
    struct pn_message *message = stream->first;
    stream->first = message->next;
    if (stream->first == NULL)
        stream->last = NULL;
    stream->first_written = 0;
    stream->queued--;
    if (stream->course == WAITS)
        call_resume(&stream->call);
    if (message->token != 0 && stream->bridge_id != 0)
        bridge_written(stream->bridge_id, message->token);
    message_release(message);
}

int answer_write(struct pn_stream *stream, const uint8_t *header, size_t length)
{
    enum { FRAME_HEADER_BYTES = 9 };
    struct pn_connection *connection = stream->call.connection;
    struct pn_output *output = &connection->output;
    if (!output_has_room(output))
        return NGHTTP2_ERR_WOULDBLOCK;
    if (!output_copy(output, header, FRAME_HEADER_BYTES))
        return NGHTTP2_ERR_CALLBACK_FAILURE;
    connection->unread_bytes -= length;
    while (length != 0) {
        struct pn_message *message = stream->first;
        size_t left = message->length - stream->first_written;
        size_t size = left < length ? left : length;
        if (!output_refer(output, message, message->data + stream->first_written, size))
            return NGHTTP2_ERR_CALLBACK_FAILURE;
        stream->first_written += size;
        length -= size;
        if (size == left)
            written(stream);
    }
    return 0;
}

static void respond(struct pn_stream *stream, const uint8_t *fields, size_t size)
{
    nghttp2_nv headers[FIELDS_MAX];
    size_t count = 0;
    headers[count++] = LITERAL(":status", "200");
    headers[count++] = LITERAL("content-type", "application/grpc");
    headers[count++] = LITERAL("grpc-accept-encoding", "identity, deflate, gzip");
    count = add_fields(headers, count, fields, size);
    nghttp2_data_provider provider = {.source.ptr = stream, .read_callback = offer};
    stream->responded = true;
    check(stream, nghttp2_submit_response(session_of(stream), stream->id, headers, count, &provider));
}

static void proceed(struct pn_stream *stream)
{
    if (!stream->responded) {
        respond(stream, NULL, 0);
    } else if (stream->deferred) {
        stream->deferred = false;
        check(stream, nghttp2_session_resume_data(session_of(stream), stream->id));
    }
}

void answer_headers(struct pn_stream *stream, const uint8_t *fields, size_t size)
{
    if (!stream->responded && !stream->over)
        respond(stream, fields, size);
}

void answer_message(struct pn_stream *stream, struct pn_message *message)
{
    if (stream->over) {
        message_release(message);
        return;
    }
    unread_answered(stream, message->length);
    message->next = NULL;
    stream->queued++;
    if (stream->last != NULL)
        stream->last->next = message;
    else
        stream->first = message;
    stream->last = message;
    stream->call.connection->unread_bytes += message->length;
    proceed(stream);
}

void answer_status(struct pn_stream *stream, int status, const char *text, size_t text_size, const uint8_t *fields,
                   size_t size)
{
    if (stream->over)
        return;
    stream->over = true;
    stream->course = TO_NOBODY;
    stream->status = status;
    if (!grpc_encode_text(&stream->text, text, text_size) || !bytes_append(&stream->trailers, fields, size)) {
        connection_break(stream->call.connection);
        return;
    }
    if (stream->responded || stream->first != NULL) {
        proceed(stream);
        return;
    }
    nghttp2_nv headers[FIELDS_MAX];
    char number[16];
    size_t count = 0;
    headers[count++] = LITERAL(":status", "200");
    headers[count++] = LITERAL("content-type", "application/grpc");
    count = add_status(stream, headers, count, number);
    stream->responded = true;
    check(stream, nghttp2_submit_response(session_of(stream), stream->id, headers, count, NULL));
}

void answer_http(struct pn_stream *stream, const char *status)
{
    nghttp2_nv headers[] = {pair(":status", 7, status, strlen(status))};
    stream->over = stream->responded = true;
    stream->course = TO_NOBODY;
    check(stream, nghttp2_submit_response(session_of(stream), stream->id, headers, 1, NULL));
}

void answer_forget(struct pn_stream *stream)
{
    stream->call.connection->unread_bytes -= queued_bytes(stream, SIZE_MAX / 2);
    while (stream->first != NULL) {
        struct pn_message *message = stream->first;
        stream->first = message->next;
        message_release(message);
    }
    stream->last = NULL;
}
