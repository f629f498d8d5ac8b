#include "listener.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "call.h"
#include "connection.h"
#include "bounds.h"
#include "loop.h"
#include "timers.h"

/* So many connections are accepted before others have their turn. */
enum { ACCEPTED_AT_ONCE = 64 };
/* Without a free descriptor the socket stays readable: look again after so long instead of spinning. */
#define PAUSE_NS UINT64_C(50000000)

struct pn_listener {
    struct pn_watch watch;
    struct pn_timer pause;
    struct pn_listener *next;
    bool tls;
};

static struct pn_listener *listeners;

static struct pn_listener *of_pause(struct pn_timer *timer)
{
    return (struct pn_listener *)(void *)((char *)timer - offsetof(struct pn_listener, pause));
}

static void after_pause(struct pn_timer *timer)
{
    loop_change(&of_pause(timer)->watch, EPOLLIN);
}

static void rest(struct pn_listener *listener)
{
    if (timer_set(&listener->pause, loop_now_ns() + PAUSE_NS))
        loop_change(&listener->watch, 0);
}

static void on_ready(struct pn_watch *watch, uint32_t events)
{
    (void)events;
    struct pn_listener *listener = (struct pn_listener *)(void *)watch;
    for (int i = 0; i < ACCEPTED_AT_ONCE; i++) {
        struct sockaddr_storage peer = {.ss_family = AF_UNSPEC};
        socklen_t size = sizeof peer;
        int descriptor =
            accept4(watch->descriptor, (struct sockaddr *)&peer, &size, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (descriptor >= 0 && connections_count() >= limits.connections) {
            close(descriptor);
            continue;
        }
        if (descriptor >= 0) {
            connection_open(descriptor, listener->tls, &peer);
            continue;
        }
        if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM)
            rest(listener);
        if (errno != EINTR && errno != ECONNABORTED)
            return;
    }
}

int listener_add(int descriptor, bool tls)
{
    struct pn_listener *listener = malloc(sizeof *listener);
    if (listener == NULL)
        return ENOMEM;
    *listener = (struct pn_listener){
        .watch = {descriptor, on_ready}, .pause.due = after_pause, .next = listeners, .tls = tls};
    if (!loop_watch(&listener->watch, EPOLLIN)) {
        int reason = errno;
        free(listener);
        return reason;
    }
    listeners = listener;
    return 0;
}

void listeners_close(void)
{
    while (listeners != NULL) {
        struct pn_listener *listener = listeners;
        listeners = listener->next;
        timer_clear(&listener->pause);
        loop_forget(&listener->watch);
        close(listener->watch.descriptor);
        free(listener);
    }
}
