/* Requests that would be answered too late are refused as early as can be known: at the headers, or when their first
 * tensor comes. Words and trailers are those of frontend/failures.py and frontend/status.py; tests/native/test_hot.py
 * compares them. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "grpc.h"
#include "hot.h"
#include "request_log.h"

/* Python cuts longer ones. */
enum { TEXT_MAX = 1024 };
enum { LANES_ASKED_MAX = 16 };
/* Of the calls that do not say what they are for, so many are refused for one that is looked at. */
enum { REFUSED_FOR_ONE_SEEN = 15 };
static const uint64_t pressed_ns = 1000000000;

static const char retry_info[] = "type.googleapis.com/google.rpc.RetryInfo";

static uint64_t pressed_until_ns;
static unsigned unseen;

struct buffer {
    uint8_t bytes[2 * TEXT_MAX];
    size_t size;
};

static void put(struct buffer *buffer, const void *bytes, size_t size)
{
    memcpy(buffer->bytes + buffer->size, bytes, size);
    buffer->size += size;
}

static void put_varint(struct buffer *buffer, uint64_t value)
{
    for (; value > 0x7F; value >>= 7)
        buffer->bytes[buffer->size++] = (uint8_t)(value | 0x80);
    buffer->bytes[buffer->size++] = (uint8_t)value;
}

static void put_number(struct buffer *buffer, uint8_t tag, uint64_t value)
{
    if (!value)
        return;
    buffer->bytes[buffer->size++] = tag;
    put_varint(buffer, value);
}

static void put_field(struct buffer *buffer, uint8_t tag, const void *bytes, size_t size)
{
    buffer->bytes[buffer->size++] = tag;
    put_varint(buffer, size);
    put(buffer, bytes, size);
}

/* google.rpc.Status with a RetryInfo. */
static void put_status(struct buffer *buffer, const char *text, size_t text_size, uint64_t retry_ns)
{
    struct buffer delay = {.size = 0}, info = {.size = 0}, any = {.size = 0};
    put_number(&delay, 0x08, retry_ns / 1000000000);
    put_number(&delay, 0x10, retry_ns % 1000000000);
    put_field(&info, 0x0a, delay.bytes, delay.size);
    put_field(&any, 0x0a, retry_info, sizeof retry_info - 1);
    put_field(&any, 0x12, info.bytes, info.size);
    put_number(buffer, 0x08, GRPC_RESOURCE_EXHAUSTED);
    put_field(buffer, 0x12, text, text_size);
    put_field(buffer, 0x1a, any.bytes, any.size);
}

/* Base64 without padding, as metadata have it. */
static size_t encode(const struct buffer *plain, char *to)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    size_t size = 0;
    for (size_t at = 0; at < plain->size; at += 3) {
        size_t left = plain->size - at;
        uint32_t three = (uint32_t)plain->bytes[at] << 16;
        three |= left > 1 ? (uint32_t)plain->bytes[at + 1] << 8 : 0;
        three |= left > 2 ? plain->bytes[at + 2] : 0;
        to[size++] = digits[three >> 18];
        to[size++] = digits[three >> 12 & 63];
        if (left > 1)
            to[size++] = digits[three >> 6 & 63];
        if (left > 2)
            to[size++] = digits[three & 63];
    }
    return size;
}

static void put_pair(struct buffer *buffer, const char *name, const char *value, size_t value_size)
{
    uint32_t sizes[2] = {(uint32_t)strlen(name), (uint32_t)value_size};
    put(buffer, &sizes[0], sizeof sizes[0]);
    put(buffer, name, sizes[0]);
    put(buffer, &sizes[1], sizeof sizes[1]);
    put(buffer, value, value_size);
}

static double about_ms(int64_t ns) { return ns > 0 ? (double)ns / 1e6 : 0; }

/* Ends the call. False: it has more words than these. */
static bool refuse(struct pn_call *call, const struct lane *lane, uint64_t excess_ns, int64_t left_ns)
{
    char text[TEXT_MAX / 2], pushback[24], encoded[2 * TEXT_MAX];
    struct buffer status = {.size = 0}, trailers = {.size = 0};
    int size = snprintf(text, sizeof text,
                        "an answer of model '%.*s' is expected in %.0f ms, "
                        "and the deadline of the request is in %.0f ms",
                        (int)lane->model.size, (const char *)lane->model.bytes,
                        about_ms(left_ns + (int64_t)excess_ns), about_ms(left_ns));
    if (size < 0 || (size_t)size >= sizeof text)
        return false;
    double retry_seconds = (double)excess_ns / 1e9;
    int digits = snprintf(pushback, sizeof pushback, "%.0f", ceil(retry_seconds * 1000));
    put_status(&status, text, (size_t)size, (uint64_t)rint(retry_seconds * 1e9));
    put_pair(&trailers, "grpc-retry-pushback-ms", pushback, (size_t)digits);
    put_pair(&trailers, "grpc-status-details-bin", encoded, encode(&status, encoded));
    call_fail(call, GRPC_RESOURCE_EXHAUSTED, text, (size_t)size, trailers.bytes, trailers.size);
    return true;
}

static uint64_t expected_excess_ns(struct lane *lane, const struct pn_call *call, uint64_t now_ns)
{
    uint32_t ahead = links_ahead(lane->pool, lane->level, now_ns);
    return expectation_excess_ns(&lane->expectation, ahead, (int64_t)(call->deadline_ns - now_ns), now_ns);
}

bool refuse_late(struct pn_call *call, struct lane *lane, const struct request *request)
{
    uint64_t now_ns = loop_now_ns();
    uint64_t excess_ns = call->deadline_ns ? expected_excess_ns(lane, call, now_ns) : 0;
    if (!excess_ns || !refuse(call, lane, excess_ns, (int64_t)(call->deadline_ns - now_ns)))
        return false;
    pressed_until_ns = now_ns + pressed_ns;
    if (hot_settings.pressed_until_ns)
        __atomic_store_n(hot_settings.pressed_until_ns, pressed_until_ns, __ATOMIC_RELAXED);
    struct counts *counts = &lane->counts[call->method == PN_PREDICT ? 0 : 1];
    uint64_t total_ns = now_ns > call->accepted_ns ? now_ns - call->accepted_ns : 0;
    counts_failed(counts, COUNTS_RESOURCE_EXHAUSTED, total_ns);
    ways_count(WAY_HOT);
    request_log_refused(call, lane, request, total_ns);
    return true;
}

/* Of the lanes that a call may mean, the one whose answer is late by the least; NULL if one is not late. */
static struct lane *least_late(const struct pn_call *call, const char *model, size_t model_size, uint64_t now_ns)
{
    struct lane *mildest = NULL;
    uint64_t least_ns = UINT64_MAX;
    unsigned asked = 0;
    for (struct lane *lane = routes_lanes(); lane; lane = lane->next) {
        if (lane->dropped || (model && (lane->model.size != model_size ||
                                        memcmp(lane->model.bytes, model, model_size) != 0)))
            continue;
        if (++asked > LANES_ASKED_MAX || !lane->pool)
            return NULL;
        uint64_t excess_ns = expected_excess_ns(lane, call, now_ns);
        if (!excess_ns)
            return NULL;
        if (excess_ns < least_ns) {
            least_ns = excess_ns;
            mildest = lane;
        }
    }
    return mildest;
}

bool refuse_unread(struct pn_call *call, const struct grant *grant)
{
    uint64_t now_ns = loop_now_ns();
    if (now_ns >= pressed_until_ns || !call->deadline_ns || !hot_settings.complete)
        return false;
    size_t size = 0;
    const char *model = call_metadata(call, "predictd-model", &size);
    struct lane *lane = least_late(call, model, size, now_ns);
    /* A refusal names a model, which is to be one of the caller's. */
    if (!lane || (grant && !(model ? grant_has(grant, lane->id) : grant_has_every_lane(grant))))
        return false;
    /* It may be of a priority that would have been served. */
    if (!model && (unseen = (unseen + 1) % (REFUSED_FOR_ONE_SEEN + 1)) == 0)
        return false;
    return refuse_late(call, lane, NULL);
}

void refusals_clear(void)
{
    pressed_until_ns = 0;
    unseen = 0;
}
