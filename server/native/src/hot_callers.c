/* What Python says of callers, of clients and of the log of requests. */
#include <string.h>

#include "hot_commands.h"
#include "hot.h"
#include "request_log.h"

/* Whether callers have to be known. */
COMMAND(guard)
{
    struct arguments take = arguments_of(arguments, size);
    (void)result;
    bool guarded = take_u32(&take) != 0;
    if (!is_read(&take))
        return misread;
    hot_settings.guarded = guarded;
    return NULL;
}

/* How many requests a client may have, 0: any number. */
COMMAND(client_limit)
{
    struct arguments take = arguments_of(arguments, size);
    (void)result;
    uint32_t limit = take_u32(&take);
    if (!is_read(&take))
        return misread;
    clients_limit(limit);
    return NULL;
}

/* A caller, until when, whether it may have every lane, or else which. */
COMMAND(grant)
{
    struct arguments take = arguments_of(arguments, size);
    (void)result;
    struct credential credential;
    const uint8_t *digest = take_bytes(&take, CREDENTIAL_BYTES);
    uint64_t expires_unix_ns = take_u64(&take);
    bool every_lane = take_u32(&take) != 0;
    size_t count = take_u32(&take);
    const uint8_t *lanes = take_bytes(&take, count * sizeof(uint32_t));
    if (!is_read(&take) || !digest)
        return misread;
    memcpy(credential.digest, digest, CREDENTIAL_BYTES);
    return grants_add(&credential, expires_unix_ns, every_lane, lanes, count);
}

COMMAND(grants_clear)
{
    (void)arguments;
    (void)result;
    if (size)
        return misread;
    grants_clear();
    return NULL;
}

/* Gives 1 where a client may have one request more, which it then has. */
COMMAND(client_enter)
{
    uint8_t *bytes = make_result(result, 1);
    if (!bytes)
        return no_memory;
    bytes[0] = clients_enter(arguments, size);
    return NULL;
}

COMMAND(client_leave)
{
    (void)result;
    clients_leave(arguments, size);
    return NULL;
}

COMMAND(client_in_flight)
{
    uint32_t count = clients_in_flight(arguments, size);
    uint8_t *bytes = make_result(result, sizeof count);
    if (!bytes)
        return no_memory;
    memcpy(bytes, &count, sizeof count);
    return NULL;
}

COMMAND(request_log)
{
    struct arguments take = arguments_of(arguments, size);
    (void)result;
    struct request_log_rule rule = {.on = true};
    rule.share = take_u64(&take);
    rule.interval_ns = take_u64(&take);
    rule.burst_ns = take_u64(&take);
    rule.read = take_address(&take);
    if (!is_read(&take) || !rule.read)
        return misread;
    request_log_set(&rule);
    return NULL;
}

/* Gives how many requests went which way since the last time. */
COMMAND(ways)
{
    (void)arguments;
    uint64_t counts[WAYS];
    if (size)
        return misread;
    uint8_t *bytes = make_result(result, sizeof counts);
    if (!bytes)
        return no_memory;
    ways_take(counts);
    memcpy(bytes, counts, sizeof counts);
    return NULL;
}
