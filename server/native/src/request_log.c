#include "request_log.h"

#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "hot.h"

enum { BEHIND_MAX = 1024 };

/* Before the texts: model, id, and what is told of the call. The Python side is in frontend/native/ended.py. */
struct line {
    uint8_t method, status, reserved[2];
    uint32_t rows, batch_rows, model_size, id_size, reserved_too;
    uint64_t version; /* of its lane, or, without an answer, the one that it names; 0: none */
    uint64_t total_ns, queue_ns, compute_ns;
};
_Static_assert(sizeof(struct line) == 56, "as Python reads it");

static struct request_log_rule rule;
static uint64_t written;
static uint64_t free_at_ns; /* when all that was used of the rate is there again */
static uint64_t random_state;

void request_log_set(const struct request_log_rule *wanted)
{
    rule = *wanted;
    written = rule.on ? __atomic_load_n(rule.read, __ATOMIC_RELAXED) : 0;
    free_at_ns = 0;
}

bool request_log_on(void) { return rule.on; }

bool request_log_is_behind(void)
{
    return rule.on && written - __atomic_load_n(rule.read, __ATOMIC_RELAXED) >= BEHIND_MAX;
}

/* Marsaglia's xorshift: which requests have a line need not be hard to guess. */
static uint64_t draw(void)
{
    if (!random_state && (getrandom(&random_state, sizeof random_state, GRND_NONBLOCK) < 0 || !random_state))
        random_state = loop_now_ns() | 1;
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state;
}

/* Whether a request has a line. By rate Python decides once more, with its own requests. */
static bool takes(void)
{
    if (!rule.on)
        return false;
    if (rule.share)
        return draw() <= rule.share;
    uint64_t now_ns = loop_now_ns();
    if (free_at_ns < now_ns)
        free_at_ns = now_ns;
    if (free_at_ns - now_ns > rule.burst_ns)
        return false;
    free_at_ns += rule.interval_ns;
    return true;
}

bool request_log_about(const struct pn_call *call, struct pn_bytes *about)
{
    char peer[PN_PEER_BYTES];
    call_peer(call, peer, sizeof peer);
    size_t identity_size, fields_size;
    const uint8_t *identity = call_identity(call, &identity_size);
    const uint8_t *fields = call_fields(call, &fields_size);
    return bytes_append_field(about, peer, strlen(peer)) && bytes_append_field(about, identity, identity_size) &&
           bytes_append_field(about, fields, fields_size);
}

/* Without memory for a line there is none. */
static void write_line(struct line *line, const struct pn_call *call, struct pb_bytes model, struct pb_bytes id)
{
    struct pn_bytes event = {0};
    line->method = (uint8_t)call->method;
    line->model_size = (uint32_t)model.size;
    line->id_size = (uint32_t)id.size;
    if (bytes_append(&event, line, sizeof *line) && bytes_append(&event, model.bytes, model.size) &&
        bytes_append(&event, id.bytes, id.size) && request_log_about(call, &event) &&
        bridge_hot_event(HOT_EVENT_LINE, event.data, event.size))
        written++;
    bytes_free(&event);
}

static struct pb_bytes id_of(const struct request *request)
{
    const struct pb_reader *reader = &request->reader;
    return (struct pb_bytes){reader->head + reader->id.at, reader->has_id ? reader->id.size : 0};
}

void request_log_answered(const struct request *request, const struct completion *record, uint64_t total_ns)
{
    if (!takes())
        return;
    struct line line = {.status = COUNTS_OK,
                        .rows = request->rows,
                        .batch_rows = record->batch_rows,
                        .version = request->lane->version,
                        .total_ns = total_ns,
                        .queue_ns = record->queue_ns,
                        .compute_ns = record->compute_ns};
    write_line(&line, request->rpc->call, request->lane->model, id_of(request));
}

void request_log_failed(const struct request *request, const struct pn_call *call, enum counts_status status,
                        uint64_t total_ns)
{
    if (!takes())
        return;
    uint64_t version = request->named_version ? request->lane->version : 0;
    struct line line = {.status = (uint8_t)status, .version = version, .total_ns = total_ns};
    write_line(&line, call, request->lane->model, id_of(request));
}

void request_log_refused(const struct pn_call *call, const struct lane *lane, const struct request *request,
                         uint64_t total_ns)
{
    if (!takes())
        return;
    struct line line = {.status = COUNTS_RESOURCE_EXHAUSTED, .total_ns = total_ns};
    struct pb_bytes id = {NULL, 0}, model = lane->model;
    if (request) {
        line.version = request->named_version ? lane->version : 0;
        id = id_of(request);
    } else if (!call_metadata(call, "predictd-model", &model.size)) {
        /* It did not say what it is for. */
        model.size = 0;
    }
    write_line(&line, call, model, id);
}
