#include "transfer.h"

#include <errno.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include "bounds.h"
#include "call.h"
#include "connection.h"
#include "session.h"
#include "tls.h"

/* One connection reads so much, so often, in one round, ... */
enum { READ_BYTES = 256 * 1024, READS_AT_ONCE = 4, RECORDS_AT_ONCE = 64, PENDING_BYTES_MAX = 1024 * 1024 };
/* ... and keeps the others waiting for so long. Bytes of tensors take a few µs for as many as small frames take ms for:
 * so it begins with a small piece, and has larger ones while these are cheap. */
enum { READ_BYTES_MIN = 8 * 1024 };
#define SHARE_NS UINT64_C(250000)
/* Frames that are owed to a client that does not read them, and goes on to send what calls for more of them: those of its
 * calls, and so many. */
enum { FRAMES_OWED_MAX = 10000, FRAMES_OF_A_CALL = 4 };

static uint8_t received[READ_BYTES];

static uint64_t clock_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * UINT64_C(1000000000) + (uint64_t)now.tv_nsec;
}

/* A whole piece was read and took so long. */
static void choose_piece(struct pn_connection *connection, uint64_t took_ns)
{
    if (took_ns > SHARE_NS && connection->read_bytes > READ_BYTES_MIN)
        connection->read_bytes /= 2;
    else if (took_ns < SHARE_NS / 2 && connection->read_bytes < READ_BYTES)
        connection->read_bytes *= 2;
}

bool transfer_in(struct pn_connection *connection)
{
    /* OpenSSL reads one record of 16 KiB at a time, and what it has read is no reason for epoll to call again. */
    int times = connection->tls != NULL ? RECORDS_AT_ONCE : READS_AT_ONCE;
    uint64_t began_ns = clock_ns(), at_ns = began_ns;
    if (connection->read_bytes == 0)
        connection->read_bytes = READ_BYTES_MIN;
    for (int i = 0; (i < times && at_ns - began_ns < SHARE_NS) || tls_has_more(connection); i++) {
        size_t room = connection->read_bytes;
        ssize_t size = connection->tls != NULL ? tls_read(connection, received, room)
                                               : recv(connection->watch.descriptor, received, room, 0);
        if (size == 0)
            return false;
        if (size < 0)
            return errno == EAGAIN || errno == EINTR;
        connection->read_ns = loop_now_ns();
        if (!session_feed(connection, received, (size_t)size))
            return false;
        /* Of plain text so much was all. */
        if (connection->tls == NULL && (size_t)size < room)
            return true;
        uint64_t before_ns = at_ns;
        at_ns = clock_ns();
        choose_piece(connection, at_ns - before_ns);
    }
    return true;
}

static bool fill(struct pn_connection *connection)
{
    struct pn_output *output = &connection->output;
    while (output_has_room(output) && output->pending_bytes < PENDING_BYTES_MAX) {
        const uint8_t *data;
        ssize_t size = nghttp2_session_mem_send(connection->session, &data);
        if (size < 0)
            return false;
        if (size == 0)
            return true;
        if (!output_copy(output, data, (size_t)size))
            return false;
    }
    return true;
}

static ssize_t write_pieces(struct pn_connection *connection)
{
    struct pn_output *output = &connection->output;
    struct pn_piece *pieces = output->pieces + output->first;
    size_t count = output->count - output->first;
    if (connection->tls != NULL)
        return tls_write(connection, pieces[0].data, pieces[0].size);
    struct iovec vectors[OUTPUT_PIECES];
    for (size_t i = 0; i < count; i++)
        vectors[i] = (struct iovec){(void *)(uintptr_t)pieces[i].data, pieces[i].size};
    struct msghdr message = {.msg_iov = vectors, .msg_iovlen = count};
    return sendmsg(connection->watch.descriptor, &message, MSG_NOSIGNAL);
}

static bool owes_too_much(const struct pn_connection *connection)
{
    return nghttp2_session_get_outbound_queue_size(connection->session) >
           FRAMES_OWED_MAX + FRAMES_OF_A_CALL * limits.streams;
}

bool transfer_out(struct pn_connection *connection)
{
    for (;;) {
        if (!fill(connection))
            return false;
        if (connection->output.pending_bytes == 0)
            return true;
        ssize_t size = write_pieces(connection);
        if (size == 0)
            return false;
        if (size < 0)
            return (errno == EAGAIN || errno == EINTR) && !owes_too_much(connection);
        output_written(&connection->output, (size_t)size);
    }
}
