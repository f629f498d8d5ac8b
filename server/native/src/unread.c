#include "unread.h"

#include "bounds.h"
#include "connection.h"
#include "stream.h"

/* As in frontend/apis/streams.py and frontend/unread.py. */
enum { IN_FLIGHT_MAX = 256, FORGET_SHARE = 64 };

static size_t expected_bytes;

static bool connection_has_room(const struct pn_connection *connection)
{
    size_t unread_bytes = connection->unread_bytes + connection->output.pending_bytes;
    if (connection->awaited == 0 && unread_bytes == 0)
        return true;
    return unread_bytes + (connection->awaited + 1) * expected_bytes <= limits.unread_bytes;
}

bool unread_has_room(const struct pn_stream *stream)
{
    return stream->awaited + stream->queued < IN_FLIGHT_MAX && connection_has_room(stream->call.connection);
}

void unread_taken(struct pn_stream *stream)
{
    stream->awaited++;
    stream->call.connection->awaited++;
}

void unread_answered(struct pn_stream *stream, size_t size)
{
    size_t forgotten = expected_bytes - expected_bytes / FORGET_SHARE;
    expected_bytes = size > forgotten ? size : forgotten;
    if (stream->awaited == 0)
        return;
    stream->awaited--;
    stream->call.connection->awaited--;
}

void unread_gone(struct pn_stream *stream)
{
    stream->call.connection->awaited -= stream->awaited;
    stream->awaited = 0;
}

void unread_look_again(struct pn_connection *connection)
{
    if (!connection->waits_unread || !connection_has_room(connection))
        return;
    connection->waits_unread = false;
    /* The newest is the first in this list, and the last to be asked: see call_resume. */
    for (struct pn_stream *stream = connection->streams; stream != NULL; stream = stream->next)
        if (stream->course == WAITS)
            call_resume(&stream->call);
}

void unread_forget(void)
{
    expected_bytes = 0;
}
