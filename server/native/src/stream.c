#include "stream.h"

#include <nghttp2/nghttp2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "answer.h"
#include "bounds.h"
#include "bridge.h"
#include "connection.h"
#include "ending.h"
#include "grpc.h"
#include "incoming.h"
#include "remains.h"
#include "tls.h"
#include "unread.h"
#include "upload.h"

static const struct {
    const char *path;
    enum pn_method method;
} hot_methods[] = {
    {"/predictd.v1.PredictionService/Predict", PN_PREDICT},
    {"/predictd.v1.PredictionService/PredictStream", PN_PREDICT_STREAM},
    {"/inference.GRPCInferenceService/ModelInfer", PN_MODEL_INFER},
    {"/inference.GRPCInferenceService/ModelStreamInfer", PN_MODEL_STREAM_INFER},
};

/* Headers that are gRPC's and HTTP's business, not the adapters'. */
static const char *const own_headers[] = {
    "content-type", "te", "grpc-timeout", "grpc-accept-encoding", "accept-encoding", "host", NULL,
};

/* What HTTP/2 counts for a header beside its name and value. */
enum { HEADER_OVERHEAD_BYTES = 32, STREAMS_KEPT_MAX = 1024 };

static struct pn_stream *kept;
static size_t kept_count;

static bool is(const uint8_t *name, size_t size, const char *wanted)
{
    return size == strlen(wanted) && memcmp(name, wanted, size) == 0;
}

static void on_deadline(struct pn_timer *timer)
{
    struct pn_stream *stream = (struct pn_stream *)(void *)((char *)timer - offsetof(struct pn_stream, deadline));
    answer_failure(stream, GRPC_DEADLINE_EXCEEDED, "Deadline Exceeded");
    stream_tell_gone(stream);
}

static struct pn_stream *allocate(void)
{
    struct pn_stream *stream = kept;
    if (stream == NULL)
        return calloc(1, sizeof *stream);
    kept = stream->next;
    kept_count--;
    /* Memory of headers and messages serves again. */
    struct pn_bytes path = stream->path, metadata = stream->metadata;
    path.size = metadata.size = 0;
    *stream = (struct pn_stream){.path = path, .metadata = metadata};
    return stream;
}

static void release(struct pn_stream *stream)
{
    remains_free(&stream->message);
    remains_free(&stream->pending);
    bytes_free(&stream->text);
    bytes_free(&stream->kept_text);
    bytes_free(&stream->trailers);
    if (kept_count < STREAMS_KEPT_MAX && stream->metadata.capacity <= 1024 && stream->path.capacity <= 1024) {
        stream->next = kept;
        kept = stream;
        kept_count++;
        return;
    }
    bytes_free(&stream->path);
    bytes_free(&stream->metadata);
    free(stream);
}

void streams_forget(void)
{
    while (kept != NULL) {
        struct pn_stream *stream = kept;
        kept = stream->next;
        bytes_free(&stream->path);
        bytes_free(&stream->metadata);
        free(stream);
    }
    kept_count = 0;
}

struct pn_stream *stream_new(struct pn_connection *connection, int32_t id)
{
    struct pn_stream *stream = allocate();
    if (stream == NULL)
        return NULL;
    stream->id = id;
    stream->call.connection = connection;
    stream->call.accepted_ns = loop_now_ns();
    stream->deadline.due = on_deadline;
    stream->next = connection->streams;
    if (stream->next != NULL)
        stream->next->previous = stream;
    connection->streams = stream;
    connection_stream_began(connection);
    return stream;
}

static bool keep_metadata(struct pn_stream *stream, const uint8_t *name, size_t name_size, const uint8_t *value,
                          size_t value_size)
{
    for (size_t i = 0; own_headers[i] != NULL; i++)
        if (is(name, name_size, own_headers[i]))
            return true;
    return bytes_append_field(&stream->metadata, name, name_size) &&
           bytes_append_field(&stream->metadata, value, value_size);
}

static void set_deadline(struct pn_stream *stream, uint64_t timeout_ns)
{
    uint64_t now_ns = stream->call.accepted_ns;
    stream->call.deadline_ns = timeout_ns < UINT64_MAX / 2 - now_ns ? now_ns + timeout_ns : 0;
}

bool stream_header(struct pn_stream *stream, const uint8_t *name, size_t name_size, const uint8_t *value,
                   size_t value_size)
{
    uint64_t timeout_ns;
    stream->header_bytes += name_size + value_size + HEADER_OVERHEAD_BYTES;
    if (stream->header_bytes > limits.metadata_bytes)
        return true;
    if (name_size != 0 && name[0] == ':') {
        if (is(name, name_size, ":method"))
            stream->is_post = is(value, value_size, "POST");
        else if (is(name, name_size, ":path"))
            return bytes_append(&stream->path, value, value_size);
        return true;
    }
    if (is(name, name_size, "content-type")) {
        stream->is_grpc = grpc_is_content_type(value, value_size);
    } else if (is(name, name_size, "grpc-timeout")) {
        if (grpc_timeout_ns(value, value_size, &timeout_ns))
            set_deadline(stream, timeout_ns);
        else
            stream->odd_timeout = true;
    }
    return keep_metadata(stream, name, name_size, value, value_size);
}

static enum pn_method method_of(const struct pn_stream *stream)
{
    for (size_t i = 0; i < sizeof hot_methods / sizeof *hot_methods; i++)
        if (is(stream->path.data, stream->path.size, hot_methods[i].path))
            return hot_methods[i].method;
    return PN_OTHER;
}

static bool refuse_headers(struct pn_stream *stream)
{
    if (stream->header_bytes > limits.metadata_bytes) {
        char text[128];
        snprintf(text, sizeof text, "received metadata size exceeds hard limit (%llu vs. %llu)",
                 (unsigned long long)stream->header_bytes, (unsigned long long)limits.metadata_bytes);
        answer_failure(stream, GRPC_RESOURCE_EXHAUSTED, text);
        return true;
    }
    if (!stream->is_post || !stream->is_grpc) {
        answer_http(stream, stream->is_post ? "415" : "405");
        return true;
    }
    if (stream->odd_timeout)
        answer_failure(stream, GRPC_INTERNAL, "Error parsing 'grpc-timeout' metadata");
    return stream->odd_timeout;
}

void stream_headers_done(struct pn_stream *stream)
{
    if (refuse_headers(stream))
        return;
    stream->call.method = method_of(stream);
    if (stream->call.deadline_ns != 0 && !timer_set(&stream->deadline, stream->call.deadline_ns)) {
        answer_failure(stream, GRPC_RESOURCE_EXHAUSTED, "no memory");
        return;
    }
    enum pn_verdict verdict = PN_BRIDGE;
    if (stream->call.method != PN_OTHER) {
        verdict = hot_begin(&stream->call);
        stream->hot = verdict != PN_BRIDGE;
    }
    if (verdict == PN_BRIDGE || verdict == PN_BOTH)
        incoming_bridge(stream);
}

void stream_half_closed(struct pn_stream *stream)
{
    stream->half_closed = true;
    ending_half_closed(stream);
}

void stream_tell_gone(struct pn_stream *stream)
{
    stream->course = TO_NOBODY;
    unread_gone(stream);
    upload_end(stream);
    if (stream->hot) {
        stream->hot = false;
        hot_gone(&stream->call);
    }
    if (stream->bridge_id != 0) {
        bridge_gone(stream->bridge_id);
        stream->bridge_id = 0;
    }
}

void stream_gone(struct pn_stream *stream)
{
    struct pn_connection *connection = stream->call.connection;
    stream_tell_gone(stream);
    nghttp2_session_set_stream_user_data(connection->session, stream->id, NULL);
    timer_clear(&stream->deadline);
    incoming_forget(stream);
    answer_forget(stream);
    if (stream->next != NULL)
        stream->next->previous = stream->previous;
    if (stream->previous != NULL)
        stream->previous->next = stream->next;
    else
        connection->streams = stream->next;
    connection_stream_ended(connection);
    connection_touch(connection);
    release(stream);
}

/* What hot calls ------------------------------------------------------------------------------------------------ */

static struct pn_stream *of(struct pn_call *call)
{
    return (struct pn_stream *)(void *)call;
}

bool stream_is_hot_unary(const struct pn_stream *stream)
{
    return stream->call.method == PN_PREDICT || stream->call.method == PN_MODEL_INFER;
}

bool stream_is_hot_stream(const struct pn_stream *stream)
{
    return stream->hot && !stream_is_hot_unary(stream);
}

void call_answer(struct pn_call *call, uint8_t *content, size_t length)
{
    struct pn_stream *stream = of(call);
    struct pn_message *message = message_of(content);
    message_close(message, length);
    answer_message(stream, message);
    if (stream_is_hot_unary(stream))
        answer_status(stream, GRPC_OK, "", 0, NULL, 0);
}

void call_fail(struct pn_call *call, int status, const char *text, size_t text_size, const uint8_t *metadata,
               size_t metadata_size)
{
    answer_status(of(call), status, text, text_size, metadata, metadata_size);
}

void call_done(struct pn_call *call)
{
    struct pn_stream *stream = of(call);
    stream->hot_done = true;
    ending_finish(stream);
}

const char *call_metadata(const struct pn_call *call, const char *name, size_t *size)
{
    const struct pn_stream *stream = (const struct pn_stream *)(const void *)call;
    size_t place = 0;
    struct pn_field key, value;
    while (field_next(stream->metadata.data, stream->metadata.size, &place, &key) &&
           field_next(stream->metadata.data, stream->metadata.size, &place, &value)) {
        if (is(key.data, key.size, name)) {
            *size = value.size;
            return (const char *)value.data;
        }
    }
    return NULL;
}

const uint8_t *call_fields(const struct pn_call *call, size_t *size)
{
    const struct pn_stream *stream = (const struct pn_stream *)(const void *)call;
    *size = stream->metadata.size;
    return stream->metadata.data;
}

const uint8_t *call_identity(const struct pn_call *call, size_t *size)
{
    const struct pn_connection *connection = call->connection;
    *size = tls_identify(call->connection) ? connection->identity.size : 0;
    return connection->identity.data;
}

void call_peer(const struct pn_call *call, char *text, size_t room)
{
    connection_peer(call->connection, text, room);
}
