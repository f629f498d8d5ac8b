#include "loop.h"

#include <errno.h>
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>

#include "bridge.h"
#include "call.h"
#include "connection.h"
#include "ending.h"
#include "incoming.h"
#include "inflate.h"
#include "bounds.h"
#include "listener.h"
#include "message.h"
#include "remains.h"
#include "session.h"
#include "stream.h"
#include "timers.h"
#include "tls.h"
#include "unread.h"

enum { EVENTS_MAX = 256, LONGEST_WAIT_MS = 60000 };

struct pn_limits limits;

static int poller = -1;
static uint64_t now_ns;
static bool ending;
static struct pn_watch completions = {.descriptor = -1};
static struct pn_timer hot_due;

static void read_clock(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    now_ns = (uint64_t)now.tv_sec * UINT64_C(1000000000) + (uint64_t)now.tv_nsec;
}

const char *loop_open(void)
{
    poller = epoll_create1(EPOLL_CLOEXEC);
    if (poller < 0)
        return "epoll_create1";
    ending = false;
    read_clock();
    return bridge_open();
}

void loop_close(void)
{
    connections_forget();
    streams_forget();
    incoming_forget_all();
    inflate_forget();
    endings_forget();
    unread_forget();
    sessions_forget();
    tls_forget();
    bridge_close();
    timers_forget();
    messages_forget();
    remains_forget();
    close(poller);
    poller = -1;
    completions.descriptor = -1;
}

static bool control(int what, struct pn_watch *watch, uint32_t events)
{
    struct epoll_event event = {.events = events, .data.ptr = watch};
    return epoll_ctl(poller, what, watch->descriptor, &event) == 0;
}

bool loop_watch(struct pn_watch *watch, uint32_t events)
{
    return control(EPOLL_CTL_ADD, watch, events);
}

bool loop_change(struct pn_watch *watch, uint32_t events)
{
    return control(EPOLL_CTL_MOD, watch, events);
}

void loop_forget(struct pn_watch *watch)
{
    control(EPOLL_CTL_DEL, watch, 0);
}

static int wait_ms(void)
{
    uint64_t next = timers_next();
    if (streams_wait_to_resume() || remains_left())
        return 0;
    if (next <= now_ns)
        return 0;
    uint64_t left_ms = (next - now_ns + 999999) / 1000000;
    return left_ms > LONGEST_WAIT_MS ? LONGEST_WAIT_MS : (int)left_ms;
}

static void handle(const struct epoll_event *events, int count)
{
    read_clock();
    for (int i = 0; i < count; i++) {
        struct pn_watch *watch = events[i].data.ptr;
        watch->ready(watch, events[i].events);
    }
    /* Only now: commands may free what has events in this round. */
    bridge_run_commands();
    timers_run(now_ns);
    streams_resume();
    /* Answers before tickets: the worker that these wake may take this CPU for its run. */
    connections_flush();
    hot_round();
    /* What found neither a worker nor Python is answered, too. */
    connections_flush();
    hot_round_over();
    connections_bury();
    remains_shrink();
    bridge_notify();
}

bool loop_round(int longest_wait_ms)
{
    static struct epoll_event events[EVENTS_MAX];
    int wait = wait_ms();
    if (longest_wait_ms >= 0 && longest_wait_ms < wait)
        wait = longest_wait_ms;
    int count = epoll_wait(poller, events, EVENTS_MAX, wait);
    if (count < 0 && errno != EINTR)
        return false;
    handle(events, count < 0 ? 0 : count);
    return true;
}

void loop_run(void)
{
    hot_start();
    while (!ending || connections_count() != 0)
        if (!loop_round(-1))
            break;
    listeners_close();
    hot_stop();
    timer_clear(&hot_due);
}

void loop_end(void)
{
    ending = true;
}

uint64_t loop_now_ns(void)
{
    return now_ns;
}

static void on_completions(struct pn_watch *watch, uint32_t events)
{
    (void)watch;
    (void)events;
    hot_completions();
}

bool loop_watch_completions(int descriptor)
{
    completions = (struct pn_watch){descriptor, on_completions};
    return loop_watch(&completions, EPOLLIN);
}

static void on_hot_due(struct pn_timer *timer)
{
    (void)timer;
    hot_timer();
}

void loop_wake_hot_at(uint64_t at_ns)
{
    hot_due.due = on_hot_due;
    if (at_ns == 0)
        timer_clear(&hot_due);
    else
        timer_set(&hot_due, at_ns);
}
