#include "compressed.h"

#include "bounds.h"
#include "connection.h"
#include "inflate.h"
#include "stream.h"

/* So long may messages of one connection be inflated in a round; further ones are Python's. */
#define INFLATING_NS UINT64_C(250000)

static int format_of(const struct pn_stream *stream)
{
    size_t size;
    const char *encoding = call_metadata(&stream->call, "grpc-encoding", &size);
    return encoding == NULL ? 0 : inflate_format(encoding, size);
}

bool compressed_may_be_hot(const struct pn_stream *stream)
{
    return stream->length != 0 && stream->length <= INFLATE_PACKED_BYTES_MAX && format_of(stream) != 0;
}

static const uint8_t *inflated(struct pn_stream *stream, size_t *size)
{
    struct pn_connection *connection = stream->call.connection;
    if (connection->inflated_at_ns != loop_now_ns()) {
        connection->inflated_at_ns = loop_now_ns();
        connection->inflating_left_ns = INFLATING_NS;
    }
    return inflate_message(format_of(stream), &stream->message, limits.message_bytes, &connection->inflating_left_ns,
                           size);
}

enum pn_verdict compressed_offer(struct pn_stream *stream)
{
    struct pn_call *call = &stream->call;
    size_t size = 0;
    const uint8_t *plain = inflated(stream, &size);
    enum pn_verdict verdict = plain != NULL ? hot_message_begin(call, size) : PN_WAIT;
    /* Python waits, too, where there is something to be waited for. */
    if (verdict == PN_WAIT) {
        hot_pass(call, true);
        return PN_BRIDGE;
    }
    if (verdict != PN_MORE)
        return verdict;
    verdict = hot_feed(call, plain, size);
    if (verdict == PN_MORE)
        verdict = hot_message_end(call);
    if (verdict == PN_BRIDGE)
        hot_drop(call);
    return verdict;
}
