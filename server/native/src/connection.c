#include "connection.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "bounds.h"
#include "bridge.h"
#include "call.h"
#include "session.h"
#include "stream.h"
#include "transfer.h"
#include "tls.h"
#include "unread.h"

static struct pn_connection *connections;
static size_t count;
/* All are told to go: nobody new comes, and Python waits for the last. */
static bool all_leave;
static struct pn_connection *due;
static struct pn_connection *dead;
/* Ages differ by a tenth, so that clients that came together do not go together. Not for secrets. */
static uint32_t spread = 2463534242;

/* Data of the PING that follows the first GOAWAY: its answer shows that the client has heard it. */
static const uint8_t leaving_ping[8] = {'g', 'o', 'i', 'n', 'g', 0, 0, 0};
/* A client that does not answer it is taken at its word after so long. */
#define LEAVING_NS UINT64_C(1000000000)
/* Time for the GOAWAY to be read by a client that asked too often. */
#define CALMED_NS UINT64_C(100000000)

static void on_due(struct pn_timer *timer);
static void on_ready(struct pn_watch *watch, uint32_t events);

static uint64_t age_ns(void)
{
    if (limits.max_age_ns == 0)
        return UINT64_MAX / 2;
    spread ^= spread << 13;
    spread ^= spread >> 17;
    spread ^= spread << 5;
    return limits.max_age_ns / 10 * 9 + limits.max_age_ns / 5 / 1000 * (spread % 1000);
}

void connection_open(int descriptor, bool tls, const struct sockaddr_storage *peer)
{
    int on = 1;
    if (peer->ss_family != AF_UNIX)
        setsockopt(descriptor, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    struct pn_connection *connection = calloc(1, sizeof *connection);
    if (connection == NULL) {
        close(descriptor);
        return;
    }
    uint64_t now_ns = loop_now_ns();
    connection->watch = (struct pn_watch){descriptor, on_ready};
    connection->timer.due = on_due;
    connection->opened_ns = connection->read_ns = connection->idle_ns = now_ns;
    connection->leave_at_ns = now_ns + age_ns();
    connection->cut_at_ns = UINT64_MAX;
    connection->glitches.since_ns = now_ns;
    connection->peer = *peer;
    connection->next = connections;
    if (connections != NULL)
        connections->previous = connection;
    connections = connection;
    count++;
    bool fine = session_open(connection) && (!tls || tls_open(connection));
    if (!fine || !loop_watch(&connection->watch, EPOLLIN)) {
        connection_close(connection);
        return;
    }
    on_due(&connection->timer);
    connection_touch(connection);
}

void connection_touch(struct pn_connection *connection)
{
    if (connection->due || connection->closed)
        return;
    connection->due = true;
    connection->next_due = due;
    due = connection;
}

void connection_break(struct pn_connection *connection)
{
    connection->broken = true;
    connection_touch(connection);
}

void connection_close(struct pn_connection *connection)
{
    if (connection->closed)
        return;
    connection->closed = true;
    while (connection->streams != NULL)
        stream_gone(connection->streams);
    loop_forget(&connection->watch);
    timer_clear(&connection->timer);
    if (connection->next != NULL)
        connection->next->previous = connection->previous;
    if (connection->previous != NULL)
        connection->previous->next = connection->next;
    else
        connections = connection->next;
    count--;
    connection->next = dead;
    dead = connection;
}

/* Reading and writing ------------------------------------------------------------------------------------------- */

static void on_ready(struct pn_watch *watch, uint32_t events)
{
    struct pn_connection *connection = (struct pn_connection *)(void *)watch;
    if (connection->closed)
        return;
    /* Of TLS either direction may wait for the other. */
    if (connection->tls != NULL || events & (EPOLLIN | EPOLLHUP | EPOLLERR)) {
        if (!transfer_in(connection)) {
            connection_close(connection);
            return;
        }
    }
    connection_touch(connection);
}

static bool is_over(const struct pn_connection *connection)
{
    if (connection->output.count != connection->output.first)
        return false;
    if (connection->leaving == LEAVES && connection->streams == NULL)
        return true;
    return !nghttp2_session_want_read(connection->session) && !nghttp2_session_want_write(connection->session);
}

static bool waits_for_room(const struct pn_connection *connection)
{
    return connection->tls != NULL ? tls_waits_for_room(connection)
                                   : connection->output.count != connection->output.first;
}

void connections_flush(void)
{
    while (due != NULL) {
        struct pn_connection *connection = due;
        due = connection->next_due;
        connection->due = false;
        if (connection->closed)
            continue;
        if (connection->broken || !transfer_out(connection) || is_over(connection)) {
            connection_close(connection);
            continue;
        }
        unread_look_again(connection);
        bool waits = waits_for_room(connection);
        if (waits != connection->writes_wait) {
            connection->writes_wait = waits;
            loop_change(&connection->watch, waits ? EPOLLIN | EPOLLOUT : EPOLLIN);
        }
    }
}

void connections_bury(void)
{
    while (dead != NULL) {
        struct pn_connection *connection = dead;
        dead = connection->next;
        nghttp2_session_del(connection->session);
        output_free(&connection->output);
        bytes_free(&connection->identity);
        tls_close(connection);
        close(connection->watch.descriptor);
        free(connection);
    }
    if (all_leave && count == 0) {
        all_leave = false;
        bridge_empty();
    }
}

/* Times --------------------------------------------------------------------------------------------------------- */

static uint64_t earlier(uint64_t one, uint64_t other)
{
    return one < other ? one : other;
}

/* Before it has begun the time for the handshake counts: it could not be told. */
static bool may_be_sent_away(const struct pn_connection *connection)
{
    return connection->leaving == STAYS && (connection->began || limits.handshake_timeout_ns == 0);
}

/* When something is due next, as far as is known now. */
static uint64_t next_due(const struct pn_connection *connection)
{
    uint64_t next = connection->cut_at_ns;
    if (!connection->began && limits.handshake_timeout_ns != 0)
        next = earlier(next, connection->opened_ns + limits.handshake_timeout_ns);
    if (may_be_sent_away(connection)) {
        next = earlier(next, connection->leave_at_ns);
        if (limits.max_idle_ns != 0 && connection->idle_ns != 0)
            next = earlier(next, connection->idle_ns + limits.max_idle_ns);
    }
    if (limits.keepalive_time_ns != 0) {
        uint64_t asked = connection->ping_ns + limits.keepalive_timeout_ns;
        next = earlier(next, connection->ping_ns != 0 ? asked : connection->read_ns + limits.keepalive_time_ns);
    }
    return next;
}

static void keep_alive(struct pn_connection *connection, uint64_t now_ns)
{
    if (connection->ping_ns != 0 && connection->read_ns > connection->ping_ns)
        connection->ping_ns = 0;
    if (connection->ping_ns != 0) {
        if (now_ns >= connection->ping_ns + limits.keepalive_timeout_ns)
            connection_close(connection);
    } else if (now_ns >= connection->read_ns + limits.keepalive_time_ns) {
        connection->ping_ns = now_ns;
        if (nghttp2_submit_ping(connection->session, NGHTTP2_FLAG_NONE, NULL) != 0)
            connection_close(connection);
    }
}

static void on_due(struct pn_timer *timer)
{
    struct pn_connection *connection =
        (struct pn_connection *)(void *)((char *)timer - offsetof(struct pn_connection, timer));
    uint64_t now_ns = loop_now_ns();
    bool slow = !connection->began && limits.handshake_timeout_ns != 0 &&
                now_ns >= connection->opened_ns + limits.handshake_timeout_ns;
    if (slow || now_ns >= connection->cut_at_ns) {
        /* The first step of leaving ends here, too, for a client that does not answer PINGs. */
        if (!slow && connection->leaving == NOTIFIED) {
            connection_leave(connection);
        } else {
            connection_close(connection);
            return;
        }
    }
    if (limits.keepalive_time_ns != 0)
        keep_alive(connection, now_ns);
    if (connection->closed)
        return;
    bool idle = limits.max_idle_ns != 0 && connection->idle_ns != 0 &&
                now_ns >= connection->idle_ns + limits.max_idle_ns;
    if (may_be_sent_away(connection) && (idle || now_ns >= connection->leave_at_ns))
        connection_leave(connection);
    if (connection->closed)
        return;
    uint64_t next = next_due(connection);
    if (next != UINT64_MAX && !timer_set(timer, next > now_ns ? next : now_ns + 1000000))
        connection_close(connection);
    connection_touch(connection);
}

void connection_leave(struct pn_connection *connection)
{
    int failed = 0;
    if (tls_is_shaking_hands(connection)) {
        /* It cannot be told anything. */
        connection_close(connection);
        return;
    }
    if (connection->leaving == STAYS) {
        connection->leaving = NOTIFIED;
        connection->cut_at_ns = loop_now_ns() + LEAVING_NS;
        failed = nghttp2_submit_shutdown_notice(connection->session);
    } else if (connection->leaving == NOTIFIED) {
        connection->leaving = LEAVES;
        connection->cut_at_ns = UINT64_MAX;
        if (limits.max_age_grace_ns != 0)
            connection->cut_at_ns = loop_now_ns() + limits.max_age_grace_ns;
        int32_t last = nghttp2_session_get_last_proc_stream_id(connection->session);
        failed = nghttp2_submit_goaway(connection->session, NGHTTP2_FLAG_NONE, last, NGHTTP2_NO_ERROR, NULL, 0);
    }
    if (failed != 0 || !timer_set(&connection->timer, next_due(connection)))
        connection_close(connection);
    connection_touch(connection);
}

/* What the session and its streams tell ------------------------------------------------------------------------- */

void connection_began(struct pn_connection *connection)
{
    if (connection->began)
        return;
    connection->began = true;
    connection->idle_ns = loop_now_ns();
    connection->leave_at_ns = loop_now_ns() + age_ns();
    if (!timer_set(&connection->timer, next_due(connection)))
        connection_close(connection);
}

void connection_on_ping_answer(struct pn_connection *connection, const uint8_t *opaque)
{
    connection->ping_ns = 0;
    if (memcmp(opaque, leaving_ping, sizeof leaving_ping) == 0)
        connection_leave(connection);
    else if (!timer_set(&connection->timer, next_due(connection)))
        connection_close(connection);
}

void connection_on_goaway_sent(struct pn_connection *connection)
{
    /* Not before: nghttp2 lets PINGs overtake. */
    if (connection->leaving == NOTIFIED &&
        nghttp2_submit_ping(connection->session, NGHTTP2_FLAG_NONE, leaving_ping) != 0)
        connection_break(connection);
}

void connection_on_ping(struct pn_connection *connection)
{
    uint64_t now_ns = loop_now_ns();
    bool often = connection->client_ping_ns != 0 && now_ns < connection->client_ping_ns + limits.min_ping_interval_ns;
    connection->client_ping_ns = now_ns;
    if (!often || limits.max_ping_strikes == 0 || ++connection->ping_strikes != limits.max_ping_strikes + 1)
        return;
    /* gRPC's clients know this word, and ask less often from then on. */
    static const uint8_t reason[] = "too_many_pings";
    int32_t last = nghttp2_session_get_last_proc_stream_id(connection->session);
    connection->leaving = LEAVES;
    connection->cut_at_ns = earlier(connection->cut_at_ns, now_ns + CALMED_NS);
    if (nghttp2_submit_goaway(connection->session, NGHTTP2_FLAG_NONE, last, NGHTTP2_ENHANCE_YOUR_CALM, reason,
                              sizeof reason - 1) != 0 ||
        !timer_set(&connection->timer, connection->cut_at_ns))
        connection_close(connection);
}

void connection_stream_began(struct pn_connection *connection)
{
    connection->stream_count++;
    connection->idle_ns = 0;
}

void connection_sent(struct pn_connection *connection)
{
    connection->ping_strikes = 0;
    connection->client_ping_ns = 0;
}

void connection_stream_ended(struct pn_connection *connection)
{
    if (--connection->stream_count != 0)
        return;
    uint64_t now_ns = loop_now_ns();
    connection->idle_ns = now_ns;
    uint64_t idle_at_ns = now_ns + limits.max_idle_ns;
    if (limits.max_idle_ns != 0 && connection->timer.place != 0 && idle_at_ns < connection->timer.at_ns)
        timer_set(&connection->timer, idle_at_ns);
}

void connections_leave(void)
{
    struct pn_connection *next;
    all_leave = true;
    for (struct pn_connection *connection = connections; connection != NULL; connection = next) {
        next = connection->next;
        if (connection->leaving == STAYS)
            connection_leave(connection);
    }
}

void connections_cut(void)
{
    while (connections != NULL)
        connection_close(connections);
}

struct pn_connection *connections_first(void)
{
    return connections;
}

size_t connections_count(void)
{
    return count;
}

void connections_forget(void)
{
    connections_cut();
    due = NULL;
    all_leave = false;
    connections_bury();
    outputs_forget();
}
