/* The records of the transport, byte by byte as docs/transport.md has them. All numbers are little-endian, as is every
 * machine that this is built for. */
#ifndef PN_RECORDS_H
#define PN_RECORDS_H

#include <stddef.h>
#include <stdint.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "records are written as they lie in memory");

enum { ABI_VERSION = 1, RECORD_BYTES = 64, RECORDS_PER_WRITE = 64, LEVELS_MAX = 17 };
enum { CLAIMS_CAPACITY = 4096, CLAIMS_BYTES = 262208 };

#define NO_SEGMENT UINT32_MAX
#define NO_DEADLINE_NS ((uint64_t)INT64_MAX)

#define REQUEST_MAGIC UINT32_C(0x31515250)
#define RESPONSE_MAGIC UINT32_C(0x31505250)

enum record_status {
    STATUS_OK = 0,
    STATUS_PROBE = 7,
};

struct ticket {
    uint32_t frontend, segment, lane, rows;
    uint64_t shape_key;
    uint32_t bytes;
    uint8_t priority, flags, attempt, reserved;
    uint32_t slot, generation, block, reserved2;
    uint64_t enqueued_ns, deadline_ns;
};
_Static_assert(sizeof(struct ticket) == RECORD_BYTES, "a ticket is a record");

struct completion {
    uint32_t slot, generation, first_row, rows, worker, segment, block, batch_rows, answers, lane;
    uint64_t queue_ns, compute_ns;
    uint16_t status;
    uint8_t reserved[6];
};
_Static_assert(sizeof(struct completion) == RECORD_BYTES, "a completion is a record");

struct release {
    uint32_t frontend, segment, block, count;
    uint8_t reserved[48];
};
_Static_assert(sizeof(struct release) == RECORD_BYTES, "a release is a record");

struct request_header {
    uint32_t magic, generation, lane;
    uint8_t cancelled, reserved[3];
    uint32_t inputs, rows;
    uint64_t bytes;
    uint8_t reserved2[32];
};
_Static_assert(sizeof(struct request_header) == 64, "as docs/transport.md says");

struct response_header {
    uint32_t magic, lane, outputs, rows, error_bytes, reserved;
    uint64_t bytes;
    uint8_t reserved2[32];
};
_Static_assert(sizeof(struct response_header) == 64, "as docs/transport.md says");

struct output_descriptor {
    uint64_t offset, nbytes, row_bytes, row_offsets;
    uint8_t dtype, rank, reserved[6];
};
_Static_assert(sizeof(struct output_descriptor) == 40, "as docs/transport.md says");

#endif
