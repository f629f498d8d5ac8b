/* Compressed messages of the hot path in plain. Only what is small, whole and right is inflated here: everything else is
 * Python's as it came, which has the rules and the words (frontend/native/inflate.py). */
#ifndef PN_INFLATE_H
#define PN_INFLATE_H

#include <stddef.h>
#include <stdint.h>

#include "bytes.h"

/* Larger ones would keep the other connections waiting. */
enum { INFLATE_PACKED_BYTES_MAX = 64 * 1024, INFLATE_PLAIN_BYTES_MAX = 128 * 1024 };

/* How zlib is to read the messages of a call with this grpc-encoding; 0: nobody here knows. */
int inflate_format(const char *encoding, size_t size);

/* A message in plain, which may have up to `plain_max` bytes. It lies where the next one will. What it took goes from
 * `*left_ns`. NULL: it is Python's. */
const uint8_t *inflate_message(int format, const struct pn_bytes *packed, uint64_t plain_max, uint64_t *left_ns,
                               size_t *size);

void inflate_forget(void);

#endif
