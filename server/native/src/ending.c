#include "ending.h"

#include <string.h>

#include "answer.h"
#include "bridge.h"
#include "connection.h"
#include "grpc.h"
#include "incoming.h"
#include "stream.h"
#include "upload.h"

/* What streams that only hot has are ended with once Python closes them; a size of 0: they are open. */
static struct pn_bytes closing;

void ending_stop_hot(struct pn_stream *stream)
{
    if (stream->course == TO_HOT) {
        upload_end(stream);
        hot_drop(&stream->call);
    }
    stream->course = TO_NOBODY;
    if (!stream->half_closed_told) {
        stream->half_closed_told = true;
        hot_half_closed(&stream->call);
    }
}

bool ending_closes(const struct pn_stream *stream)
{
    return closing.size != 0 && stream_is_hot_stream(stream) && stream->bridge_id == 0;
}

static void tell_half_closed(struct pn_stream *stream)
{
    stream->half_closed_told = true;
    /* A call of one request without one: Python has the words for it. */
    if (stream->hot && stream_is_hot_unary(stream) && !stream->hot_took && !stream->over)
        incoming_bridge(stream);
    if (stream->hot && !stream->over)
        hot_half_closed(&stream->call);
    if (stream->bridge_id != 0)
        bridge_half_closed(stream->bridge_id);
}

/* What there is of the message is nobody's any more, however long the client takes to read why. */
static void break_off(struct pn_stream *stream)
{
    answer_failure(stream, GRPC_INTERNAL, "the client ended the call within a message");
    stream_tell_gone(stream);
}

void ending_half_closed(struct pn_stream *stream)
{
    if (stream->half_closed_told || stream->pending.size != 0)
        return;
    bool whole = stream->course == TO_NOBODY || (stream->course == IN_PREFIX && stream->prefix_size == 0);
    if (whole)
        tell_half_closed(stream);
    else if (stream->course != WAITS && stream->course != HELD)
        break_off(stream);
}

static bool hot_owes(const struct pn_stream *stream)
{
    return stream_is_hot_stream(stream) && !stream->hot_done;
}

void ending_finish(struct pn_stream *stream)
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

void ending_python_done(struct pn_stream *stream, int status, const char *text, size_t text_size,
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
    ending_stop_hot(stream);
}

void streams_close(const char *text, size_t size)
{
    closing.size = 0;
    if (!bytes_append(&closing, text, size))
        return;
    struct pn_connection *connection = connections_first();
    for (; connection != NULL; connection = connection->next)
        for (struct pn_stream *stream = connection->streams; stream != NULL; stream = stream->next)
            if (stream_is_hot_stream(stream) && (stream->course == IN_PREFIX || stream->course == WAITS) &&
                stream->bridge_id == 0)
                ending_stop_hot(stream);
}

void endings_forget(void)
{
    bytes_free(&closing);
}
