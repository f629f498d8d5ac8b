#include "session.h"

#include <nghttp2/nghttp2.h>

#include "answer.h"
#include "connection.h"
#include "bounds.h"
#include "stream.h"

/* Frames may be so large: reading takes them as they come, so it costs nothing, and large messages gain. */
#define FRAME_BYTES (256u * 1024)
/* Given back at once: what holds clients back are the windows of their streams. */
#define CONNECTION_WINDOW_BYTES (16 * 1024 * 1024)
/* Streams that a client resets are cheap for it and not for us: so many at once, then so many a second. */
enum { RESETS_AT_ONCE = 1000, RESETS_PER_SECOND = 200 };
/* nghttp2 passes over frames that HTTP/2 does not know, and asks nobody, unless somebody else reads them. */
enum { KINDS_KNOWN = 10, KINDS = 256 };
enum { CONTINUATIONS_MAX = 8, SETTINGS_MAX = 32, ANSWERS_OWED_MAX = 1000 };

static nghttp2_session_callbacks *callbacks;
static nghttp2_option *options;

static struct pn_stream *stream_at(nghttp2_session *session, int32_t id)
{
    return nghttp2_session_get_stream_user_data(session, id);
}

static int on_begin_frame(nghttp2_session *session, const nghttp2_frame_hd *head, void *user_data)
{
    struct pn_connection *connection = user_data;
    if (glitches_allow(&connection->glitches, head, loop_now_ns()))
        return 0;
    return nghttp2_session_terminate_session(session, NGHTTP2_ENHANCE_YOUR_CALM);
}

/* It was counted when it began, and means nothing. */
static int on_unknown(nghttp2_session *session, void **payload, const nghttp2_frame_hd *head, void *user_data)
{
    (void)session;
    (void)payload;
    (void)head;
    (void)user_data;
    return NGHTTP2_ERR_CANCEL;
}

static int on_begin_headers(nghttp2_session *session, const nghttp2_frame *frame, void *user_data)
{
    struct pn_connection *connection = user_data;
    if (frame->hd.type != NGHTTP2_HEADERS || frame->headers.cat != NGHTTP2_HCAT_REQUEST)
        return 0;
    struct pn_stream *stream = stream_new(connection, frame->hd.stream_id);
    if (stream == NULL)
        return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
    return nghttp2_session_set_stream_user_data(session, frame->hd.stream_id, stream);
}

static int on_header(nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name, size_t name_size,
                     const uint8_t *value, size_t value_size, uint8_t flags, void *user_data)
{
    (void)flags;
    (void)user_data;
    if (frame->hd.type != NGHTTP2_HEADERS || frame->headers.cat != NGHTTP2_HCAT_REQUEST)
        return 0;
    struct pn_stream *stream = stream_at(session, frame->hd.stream_id);
    if (stream != NULL && !stream_header(stream, name, name_size, value, value_size))
        return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
    return 0;
}

static int on_frame(nghttp2_session *session, const nghttp2_frame *frame, void *user_data)
{
    struct pn_connection *connection = user_data;
    struct pn_stream *stream;
    switch (frame->hd.type) {
    case NGHTTP2_SETTINGS:
        connection_began(connection);
        break;
    case NGHTTP2_PING:
        if (frame->hd.flags & NGHTTP2_FLAG_ACK)
            connection_on_ping_answer(connection, frame->ping.opaque_data);
        else
            connection_on_ping(connection);
        break;
    case NGHTTP2_HEADERS:
    case NGHTTP2_DATA:
        stream = stream_at(session, frame->hd.stream_id);
        if (stream != NULL && frame->hd.type == NGHTTP2_HEADERS && frame->headers.cat == NGHTTP2_HCAT_REQUEST)
            stream_headers_done(stream);
        if (frame->hd.flags & NGHTTP2_FLAG_END_STREAM) {
            stream = stream_at(session, frame->hd.stream_id);
            if (stream != NULL)
                stream_half_closed(stream);
        }
        break;
    default:
        break;
    }
    return connection->closed ? NGHTTP2_ERR_CALLBACK_FAILURE : 0;
}

static int on_data(nghttp2_session *session, uint8_t flags, int32_t id, const uint8_t *bytes, size_t size,
                   void *user_data)
{
    (void)flags;
    struct pn_connection *connection = user_data;
    nghttp2_session_consume_connection(session, size);
    struct pn_stream *stream = stream_at(session, id);
    if (stream != NULL)
        stream_data(stream, bytes, size);
    return connection->closed ? NGHTTP2_ERR_CALLBACK_FAILURE : 0;
}

static int on_stream_close(nghttp2_session *session, int32_t id, uint32_t error_code, void *user_data)
{
    (void)error_code;
    (void)user_data;
    struct pn_stream *stream = stream_at(session, id);
    if (stream != NULL)
        stream_gone(stream);
    return 0;
}

static int on_frame_sent(nghttp2_session *session, const nghttp2_frame *frame, void *user_data)
{
    struct pn_connection *connection = user_data;
    if (frame->hd.type == NGHTTP2_GOAWAY)
        connection_on_goaway_sent(connection);
    if (frame->hd.type != NGHTTP2_HEADERS && frame->hd.type != NGHTTP2_DATA)
        return 0;
    connection_sent(connection);
    glitches_earn(&connection->glitches);
    if ((frame->hd.flags & NGHTTP2_FLAG_END_STREAM) == 0)
        return 0;
    struct pn_stream *stream = stream_at(session, frame->hd.stream_id);
    /* It has its answer before it has sent everything: it need not send the rest. */
    if (stream != NULL && !stream->half_closed)
        return nghttp2_submit_rst_stream(session, NGHTTP2_FLAG_NONE, frame->hd.stream_id, NGHTTP2_NO_ERROR);
    return 0;
}

static int on_send_data(nghttp2_session *session, nghttp2_frame *frame, const uint8_t *header, size_t length,
                        nghttp2_data_source *source, void *user_data)
{
    (void)session;
    (void)frame;
    (void)user_data;
    return answer_write(source->ptr, header, length);
}

static bool prepare(void)
{
    if (callbacks != NULL)
        return true;
    if (nghttp2_session_callbacks_new(&callbacks) != 0)
        return false;
    if (nghttp2_option_new(&options) != 0) {
        nghttp2_session_callbacks_del(callbacks);
        callbacks = NULL;
        return false;
    }
    nghttp2_session_callbacks_set_on_begin_frame_callback(callbacks, on_begin_frame);
    nghttp2_session_callbacks_set_on_begin_headers_callback(callbacks, on_begin_headers);
    nghttp2_session_callbacks_set_on_header_callback(callbacks, on_header);
    nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, on_frame);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, on_data);
    nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, on_stream_close);
    nghttp2_session_callbacks_set_on_frame_send_callback(callbacks, on_frame_sent);
    nghttp2_session_callbacks_set_send_data_callback(callbacks, on_send_data);
    nghttp2_session_callbacks_set_unpack_extension_callback(callbacks, on_unknown);
    for (int kind = KINDS_KNOWN; kind < KINDS; kind++)
        nghttp2_option_set_user_recv_extension_type(options, (uint8_t)kind);
    nghttp2_option_set_no_auto_window_update(options, 1);
    nghttp2_option_set_no_closed_streams(options, 1);
    nghttp2_option_set_max_reserved_remote_streams(options, 0);
    nghttp2_option_set_max_continuations(options, CONTINUATIONS_MAX);
    nghttp2_option_set_max_settings(options, SETTINGS_MAX);
    nghttp2_option_set_max_outbound_ack(options, ANSWERS_OWED_MAX);
    nghttp2_option_set_stream_reset_rate_limit(options, RESETS_AT_ONCE, RESETS_PER_SECOND);
    return true;
}

bool session_open(struct pn_connection *connection)
{
    if (!prepare() ||
        nghttp2_session_server_new2(&connection->session, callbacks, connection, options) != 0)
        return false;
    const nghttp2_settings_entry settings[] = {
        {NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, (uint32_t)limits.streams},
        {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, STREAM_WINDOW_BYTES},
        {NGHTTP2_SETTINGS_MAX_FRAME_SIZE, FRAME_BYTES},
        {NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, (uint32_t)limits.metadata_bytes},
        {NGHTTP2_SETTINGS_NO_RFC7540_PRIORITIES, 1},
    };
    return nghttp2_submit_settings(connection->session, NGHTTP2_FLAG_NONE, settings,
                                   sizeof settings / sizeof *settings) == 0 &&
           nghttp2_session_set_local_window_size(connection->session, NGHTTP2_FLAG_NONE, 0,
                                                 CONNECTION_WINDOW_BYTES) == 0;
}

bool session_feed(struct pn_connection *connection, const uint8_t *bytes, size_t size)
{
    return nghttp2_session_mem_recv(connection->session, bytes, size) == (ssize_t)size;
}

void sessions_forget(void)
{
    if (callbacks == NULL)
        return;
    nghttp2_session_callbacks_del(callbacks);
    nghttp2_option_del(options);
    callbacks = NULL;
}
