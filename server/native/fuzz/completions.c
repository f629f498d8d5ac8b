/* libFuzzer: completions and response blocks. A request of one input and two outputs is sent, and what comes back is
 * whatever the fuzzer makes of it: a record, and the block of a worker that has gone mad. */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "no_net.h"
#include "records.h"

enum { LANE = 3, POOL = 1, WORKER = 9, SLOTS = 4, BLOCK_BYTES = 1024, INPUT_BYTES = 16 };

static int completions[2], records[2], queue[2], releases[2];
static uint32_t out[4], python_out[4];
static uint8_t request_memory[512 * 4];
static uint8_t claims[CLAIMS_BYTES];

/* model "m", input "x" FP32[1,4] with 16 bytes */
static const uint8_t predict[] = "\x0a\x01m\x22\x02id\x2a\x1b\x0a\x01x\x10\x0c\x1a\x02\x01\x04\x22\x10"
                                 "0123456789abcdef";
static const uint8_t infer[] = "\x0a\x01m\x1a\x02id\x2a\x0d\x0a\x01x\x12\x04"
                               "FP32\x1a\x02\x01\x04\x3a\x10"
                               "0123456789abcdef";

static void make_pipe(int ends[2])
{
    if (pipe(ends) != 0 || fcntl(ends[0], F_SETFL, O_NONBLOCK) != 0 || fcntl(ends[1], F_SETFL, O_NONBLOCK) != 0)
        abort();
}

static void empty(int descriptor)
{
    uint8_t bytes[4096];
    while (read(descriptor, bytes, sizeof bytes) > 0)
        continue;
}

static void add_lane(bool batches)
{
    struct packed packed = {.size = 0};
    uint32_t head[] = {LANE, POOL, batches, 1};
    packed_bytes(&packed, head, sizeof head);
    packed_u64(&packed, 2);
    packed_u64(&packed, 1 << 20);
    packed_u64(&packed, 0);
    packed_text(&packed, "m");
    packed_text(&packed, "2");
    packed_u32(&packed, 2);
    packed_text(&packed, "y");
    packed_text(&packed, "z");
    no_net_do("lane_add", packed.bytes, packed.size);
    packed.size = 0;
    packed_text(&packed, "m");
    packed_u32(&packed, 1);
    packed_u64(&packed, 0);
    packed_u32(&packed, LANE);
    no_net_do("model", packed.bytes, packed.size);
}

static void add_admission(void)
{
    struct packed packed = {.size = 0};
    uint8_t head[96] = {0};
    packed_u32(&packed, LANE);
    packed_u32(&packed, 1);
    packed_u32(&packed, 0);
    packed_u64(&packed, 77);
    packed_u64(&packed, 128 + INPUT_BYTES);
    packed_u32(&packed, sizeof head);
    packed_bytes(&packed, head, sizeof head);
    packed_u32(&packed, 1);
    packed_text(&packed, "x");
    packed_u32(&packed, 12);
    packed_u32(&packed, 2);
    packed_u64(&packed, 1);
    packed_u64(&packed, 4);
    packed_u64(&packed, 128);
    packed_u64(&packed, INPUT_BYTES);
    no_net_do("admission_add", packed.bytes, packed.size);
    if (no_net.error != NULL)
        abort();
}

static void set_up(void)
{
    make_pipe(completions);
    make_pipe(records);
    make_pipe(queue);
    make_pipe(releases);
    struct packed packed = {.size = 0};
    uint32_t setup[] = {5, 2, SLOTS, (uint32_t)completions[0], (uint32_t)records[1]};
    packed_bytes(&packed, setup, sizeof setup);
    packed_u64(&packed, 1 << 20);
    packed_u64(&packed, 0);
    packed_u32(&packed, 1);
    packed_u64(&packed, 1000);
    no_net_do("setup", packed.bytes, packed.size);
    no_net_do("enable", "\1", 2);
    packed.size = 0;
    uint32_t pool[] = {POOL, 1, 1, 64};
    packed_bytes(&packed, pool, sizeof pool);
    packed_u64(&packed, (uintptr_t)out);
    packed_u64(&packed, (uintptr_t)python_out);
    packed_u32(&packed, (uint32_t)queue[1]);
    no_net_do("pool_add", packed.bytes, packed.size);
    packed.size = 0;
    uint32_t segment[] = {POOL, 8, 4};
    packed_bytes(&packed, segment, sizeof segment);
    packed_u64(&packed, 512);
    packed_u64(&packed, (uintptr_t)request_memory);
    no_net_do("segment_add", packed.bytes, packed.size);
    packed.size = 0;
    uint32_t worker[] = {WORKER, POOL, (uint32_t)releases[1]};
    packed_bytes(&packed, worker, sizeof worker);
    packed_u64(&packed, (uintptr_t)claims);
    no_net_do("worker_add", packed.bytes, packed.size);
    if (no_net.error != NULL)
        abort();
}

static void send(struct pn_call *call, const uint8_t *message, size_t size)
{
    if (hot_begin(call) != PN_MORE || hot_message_begin(call, size) != PN_MORE ||
        hot_feed(call, message, size) != PN_MORE || hot_message_end(call) != PN_TAKEN)
        abort();
    hot_round();
    hot_round_over();
}

/* Ends what was handed over, as Python would. */
static void end_handed(void)
{
    no_net_do("end", no_net.handed, sizeof no_net.handed);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct completion record;
    if (size < 1 + sizeof record)
        return 0;
    bool batches = data[0] & 1, oip = data[0] & 2, right_slot = !(data[0] & 4);
    memcpy(&record, data + 1, sizeof record);
    data += 1 + sizeof record;
    size -= 1 + sizeof record;
    hot_start();
    set_up();
    add_lane(batches);
    add_admission();

    /* As large as the block says it is, to the byte. */
    size_t block_bytes = (size + 63) / 64 * 64 + 64;
    uint8_t *block = calloc(1, block_bytes);
    if (block == NULL)
        abort();
    memcpy(block, data, size);
    struct packed packed = {.size = 0};
    uint32_t segment[] = {WORKER, 0, 1};
    packed_bytes(&packed, segment, sizeof segment);
    packed_u64(&packed, block_bytes);
    packed_u64(&packed, (uintptr_t)block);
    no_net_do("response_add", packed.bytes, packed.size);

    struct pn_call call = {.method = oip ? PN_MODEL_INFER : PN_PREDICT, .accepted_ns = 1};
    send(&call, oip ? infer : predict, oip ? sizeof infer - 1 : sizeof predict - 1);
    struct ticket ticket;
    if (read(queue[0], &ticket, sizeof ticket) != sizeof ticket)
        abort();
    if (right_slot) {
        record.slot = ticket.slot;
        record.generation = ticket.generation;
        record.worker = WORKER;
    }
    if (write(completions[1], &record, sizeof record) != sizeof record)
        abort();
    hot_completions();
    hot_round();
    hot_round_over();
    hot_gone(&call);
    end_handed();
    empty(records[0]);
    if (no_net.buffers != 0)
        abort();
    hot_stop();
    free(block);
    int ends[] = {completions[0], completions[1], records[0], records[1], queue[0], releases[0]};
    for (size_t at = 0; at < sizeof ends / sizeof *ends; at++)
        close(ends[at]);
    return 0;
}
