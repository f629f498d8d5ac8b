#include "upload.h"

#include <nghttp2/nghttp2.h>
#include <stddef.h>

#include "call.h"
#include "connection.h"
#include "incoming.h"
#include "session.h"
#include "stream.h"

/* More at once is no faster, and memory for it has to be there. */
#define WINDOW_BYTES_MAX (16 * 1024 * 1024)
#define UPLOADING_BYTES_MAX (32u * 1024 * 1024)
#define UPLOAD_NS UINT64_C(1000000000)

void upload_give_back_window(struct pn_stream *stream)
{
    bool wanted = stream->course == TO_PYTHON || stream->course == HELD || !stream->hot ? stream->hungry : true;
    if (!wanted || stream->owed_bytes == 0 || stream->half_closed || stream->over)
        return;
    nghttp2_session_consume_stream(stream->call.connection->session, stream->id, stream->owed_bytes);
    stream->owed_bytes = 0;
    connection_touch(stream->call.connection);
}

void upload_widen(struct pn_stream *stream)
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

bool upload_may_begin(const struct pn_stream *stream)
{
    size_t uploading_bytes = stream->call.connection->uploading_bytes;
    return uploading_bytes == 0 || uploading_bytes + stream->length <= UPLOADING_BYTES_MAX;
}

void upload_begin(struct pn_stream *stream)
{
    stream->course = TO_HOT;
    stream->uploading_bytes = stream->length;
    stream->call.connection->uploading_bytes += stream->length;
}

void upload_end(struct pn_stream *stream)
{
    stream->call.connection->uploading_bytes -= stream->uploading_bytes;
    stream->uploading_bytes = 0;
    timer_clear(&stream->upload);
}

static void on_slow(struct pn_timer *timer)
{
    struct pn_stream *stream = (struct pn_stream *)(void *)((char *)timer - offsetof(struct pn_stream, upload));
    if (stream->course != TO_HOT)
        return;
    incoming_take_back(stream);
    upload_give_back_window(stream);
}

bool upload_lasts(struct pn_stream *stream)
{
    stream->upload.due = on_slow;
    return stream->upload.place != 0 || timer_set(&stream->upload, loop_now_ns() + UPLOAD_NS);
}
