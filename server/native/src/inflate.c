#define ZLIB_CONST

#include "inflate.h"

#include <stdbool.h>
#include <string.h>
#include <time.h>
#include <zlib.h>

/* So many bytes are given to zlib at once: however little they come to, they do not take long. */
enum { STEP_BYTES = 4096 };
/* The window of zlib's own format, and 16 more for gzip's. */
enum { DEFLATE_BITS = MAX_WBITS, GZIP_BITS = MAX_WBITS + 16 };

static z_stream reader;
static bool made;
static uint8_t plain[INFLATE_PLAIN_BYTES_MAX];

int inflate_format(const char *encoding, size_t size)
{
    if (size == strlen("gzip") && memcmp(encoding, "gzip", size) == 0)
        return GZIP_BITS;
    return size == strlen("deflate") && memcmp(encoding, "deflate", size) == 0 ? DEFLATE_BITS : 0;
}

static uint64_t clock_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * UINT64_C(1000000000) + (uint64_t)now.tv_nsec;
}

static bool begin(int format)
{
    if (made)
        return inflateReset2(&reader, format) == Z_OK;
    made = inflateInit2(&reader, format) == Z_OK;
    return made;
}

/* All of it, and not a byte more. False: it is broken, or too large, or takes too long. */
static bool inflate_all(const struct pn_bytes *packed, size_t room, uint64_t until_ns)
{
    size_t given = 0;
    int result;
    reader.next_out = plain;
    reader.avail_out = (uInt)room;
    do {
        size_t left = packed->size - given, step = left < STEP_BYTES ? left : STEP_BYTES;
        reader.next_in = packed->data + given;
        reader.avail_in = (uInt)step;
        given += step;
        result = inflate(&reader, given == packed->size ? Z_FINISH : Z_NO_FLUSH);
    } while (result == Z_OK && given != packed->size && reader.avail_out != 0 && clock_ns() < until_ns);
    return result == Z_STREAM_END && given == packed->size && reader.avail_in == 0;
}

const uint8_t *inflate_message(int format, const struct pn_bytes *packed, uint64_t plain_max, uint64_t *left_ns,
                               size_t *size)
{
    if (*left_ns == 0 || !begin(format))
        return NULL;
    size_t room = plain_max < INFLATE_PLAIN_BYTES_MAX ? (size_t)plain_max : INFLATE_PLAIN_BYTES_MAX;
    uint64_t began_ns = clock_ns();
    bool whole = inflate_all(packed, room, began_ns + *left_ns);
    uint64_t took_ns = clock_ns() - began_ns;
    *left_ns -= took_ns < *left_ns ? took_ns : *left_ns;
    *size = room - reader.avail_out;
    return whole ? plain : NULL;
}

void inflate_forget(void)
{
    if (made)
        inflateEnd(&reader);
    reader = (z_stream){0};
    made = false;
}
