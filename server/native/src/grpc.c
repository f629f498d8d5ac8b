#include "grpc.h"

#include <string.h>

enum { TIMEOUT_DIGITS_MAX = 8 };

static uint64_t unit_ns(uint8_t unit)
{
    switch (unit) {
    case 'H': return UINT64_C(3600000000000);
    case 'M': return UINT64_C(60000000000);
    case 'S': return UINT64_C(1000000000);
    case 'm': return UINT64_C(1000000);
    case 'u': return UINT64_C(1000);
    case 'n': return UINT64_C(1);
    default: return 0;
    }
}

bool grpc_timeout_ns(const uint8_t *text, size_t size, uint64_t *timeout_ns)
{
    uint64_t unit = size < 2 ? 0 : unit_ns(text[size - 1]);
    if (unit == 0)
        return false;
    uint64_t number = 0;
    for (size_t i = 0; i < size - 1; i++) {
        if (text[i] < '0' || text[i] > '9')
            return false;
        if (i < TIMEOUT_DIGITS_MAX)
            number = 10 * number + (uint64_t)(text[i] - '0');
    }
    /* 99,999,999 hours are more than 64 bits of nanoseconds, and too many digits are taken for as much. */
    bool endless = size - 1 > TIMEOUT_DIGITS_MAX || number > UINT64_MAX / unit;
    *timeout_ns = endless ? UINT64_MAX : number * unit;
    return true;
}

bool grpc_is_content_type(const uint8_t *text, size_t size)
{
    static const char wanted[] = "application/grpc";
    size_t length = sizeof wanted - 1;
    if (size < length || memcmp(text, wanted, length) != 0)
        return false;
    return size == length || text[length] == '+' || text[length] == ';';
}

bool grpc_encode_text(struct pn_bytes *encoded, const char *text, size_t size)
{
    static const char digits[] = "0123456789ABCDEF";
    if (!bytes_reserve(encoded, 3 * size))
        return false;
    for (size_t i = 0; i < size; i++) {
        uint8_t byte = (uint8_t)text[i];
        if (byte >= 0x20 && byte <= 0x7E && byte != '%') {
            encoded->data[encoded->size++] = byte;
        } else {
            encoded->data[encoded->size++] = '%';
            encoded->data[encoded->size++] = (uint8_t)digits[byte >> 4];
            encoded->data[encoded->size++] = (uint8_t)digits[byte & 15];
        }
    }
    return true;
}
