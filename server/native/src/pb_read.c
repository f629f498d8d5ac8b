#include "pb_read.h"

#include <string.h>

/* As much is copied to the head before it is looked at: what of it belongs to a tensor is copied twice. */
enum { HEAD_STEP = 256 };

enum { VARINT = 0, LENGTH = 2 };

enum { VARINT_BYTES_MAX = 10 };

/* Numbers of fields. */
enum { PREDICT_MODEL = 1, PREDICT_VERSION = 2, PREDICT_ID = 4, PREDICT_INPUT = 5, PREDICT_OUTPUT = 6 };
enum { TENSOR_NAME = 1, TENSOR_DTYPE = 2, TENSOR_SHAPE = 3, TENSOR_DATA = 4 };
enum { INFER_MODEL = 1, INFER_VERSION = 2, INFER_ID = 3, INFER_INPUT = 5, INFER_OUTPUT = 6, INFER_RAW = 7 };
enum { OUTPUT_NAME = 1 };

enum { DTYPES = 14 };

/* A field whose tag, and length or value, are in the head. */
struct field {
    uint32_t number;
    uint32_t kind;
    uint64_t value;     /* of a VARINT; of LENGTH the number of bytes */
    size_t at;          /* in the head: behind tag and length, or behind the value */
    size_t message_end; /* in the message: the end of what the field stands in */
};

int pb_varint(const uint8_t **at, const uint8_t *end, uint64_t *value)
{
    uint64_t result = 0;
    const uint8_t *byte = *at;
    for (unsigned count = 0; count < VARINT_BYTES_MAX; count++, byte++) {
        if (byte == end)
            return 0;
        result |= (uint64_t)(*byte & 0x7F) << (7 * count);
        if (*byte < 0x80) {
            *at = byte + 1;
            *value = result;
            return 1;
        }
    }
    return -1;
}

uint8_t pb_dtype_of(const uint8_t *text, size_t size)
{
    static const char *const names[DTYPES] = {"BOOL",  "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16",
                                              "INT32", "INT64", "FP16",   "BF16",   "FP32",   "FP64", "BYTES"};
    for (uint8_t at = 0; at < DTYPES; at++)
        if (strlen(names[at]) == size && memcmp(names[at], text, size) == 0)
            return (uint8_t)(at + 1);
    return 0;
}

void pb_begin(struct pb_reader *reader, bool oip, size_t length)
{
    /* All but the arrays, whose entries are set up one by one. */
    memset(reader, 0, offsetof(struct pb_reader, outputs));
    reader->oip = oip;
    reader->length = length;
}

void pb_give(struct pb_reader *reader, const uint8_t *bytes, size_t size)
{
    reader->rest = bytes;
    reader->rest_size = size;
}

static bool take_once(bool *has, struct pb_span *span, const struct field *field)
{
    if (*has)
        return false;
    *has = true;
    *span = (struct pb_span){(uint16_t)field->at, (uint16_t)field->value};
    return true;
}

/* Strings are text, of which only ASCII is taken for valid here. */
static bool is_ascii(const uint8_t *bytes, size_t size)
{
    uint8_t any = 0;
    for (size_t at = 0; at < size; at++)
        any |= bytes[at];
    return any < 0x80;
}

static bool read_shape(struct pb_input *input, const uint8_t *at, size_t size)
{
    const uint8_t *end = at + size;
    if (input->has_shape)
        return false;
    input->has_shape = true;
    while (at < end) {
        uint64_t value;
        if (input->rank == PB_RANK_MAX || pb_varint(&at, end, &value) != 1)
            return false;
        input->shape[input->rank++] = (int64_t)value;
    }
    return true;
}

/* A requested output of the Open Inference Protocol: nothing but a name. */
static bool read_output(struct pb_reader *reader, const struct field *field)
{
    const uint8_t *at = reader->head + field->at, *end = at + field->value;
    uint64_t tag, size;
    if (reader->outputs_count == PB_OUTPUTS_MAX || pb_varint(&at, end, &tag) != 1 ||
        tag != (OUTPUT_NAME << 3 | LENGTH) || pb_varint(&at, end, &size) != 1 || size != (uint64_t)(end - at))
        return false;
    reader->outputs[reader->outputs_count++] = (struct pb_span){(uint16_t)(at - reader->head), (uint16_t)size};
    return true;
}

static bool begin_input(struct pb_reader *reader, const struct field *field)
{
    /* Behind the contents no inputs come, or contents would have no input that they belong to. */
    if (reader->inputs_count == PB_INPUTS_MAX || (reader->oip && reader->holes_count))
        return false;
    struct pb_input *input = &reader->inputs[reader->inputs_count++];
    *input = (struct pb_input){0};
    reader->tensor_end = field->at + reader->holes_bytes + field->value;
    return true;
}

static bool read_input_field(struct pb_reader *reader, const struct field *field)
{
    struct pb_input *input = &reader->inputs[reader->inputs_count - 1];
    const uint8_t *bytes = reader->head + field->at;
    if (field->number == TENSOR_NAME && field->kind == LENGTH)
        return take_once(&input->has_name, &input->name, field);
    if (field->number == TENSOR_SHAPE && field->kind == LENGTH)
        return read_shape(input, bytes, field->value);
    if (field->number != TENSOR_DTYPE || input->has_dtype || field->kind != (reader->oip ? LENGTH : VARINT))
        return false;
    input->has_dtype = true;
    if (reader->oip)
        input->dtype = pb_dtype_of(bytes, field->value);
    else
        input->dtype = field->value <= DTYPES ? (uint8_t)field->value : 0;
    return true;
}

static bool read_predict_field(struct pb_reader *reader, const struct field *field)
{
    if (field->number == PREDICT_VERSION && field->kind == VARINT) {
        bool first = !reader->has_version;
        reader->has_version = true;
        reader->version = field->value;
        return first;
    }
    if (field->kind != LENGTH)
        return false;
    if (field->number == PREDICT_MODEL)
        return take_once(&reader->has_model, &reader->model, field);
    if (field->number == PREDICT_ID)
        return take_once(&reader->has_id, &reader->id, field) && is_ascii(reader->head + field->at, field->value);
    if (field->number != PREDICT_OUTPUT || reader->outputs_count == PB_OUTPUTS_MAX)
        return false;
    reader->outputs[reader->outputs_count++] = (struct pb_span){(uint16_t)field->at, (uint16_t)field->value};
    return true;
}

static bool read_infer_field(struct pb_reader *reader, const struct field *field)
{
    if (field->kind != LENGTH)
        return false;
    if (field->number == INFER_MODEL)
        return take_once(&reader->has_model, &reader->model, field);
    if (field->number == INFER_VERSION)
        return take_once(&reader->has_version, &reader->version_text, field);
    if (field->number == INFER_ID)
        return take_once(&reader->has_id, &reader->id, field) && is_ascii(reader->head + field->at, field->value);
    return field->number == INFER_OUTPUT && read_output(reader, field);
}

static bool is_contents(const struct pb_reader *reader, const struct field *field)
{
    if (field->kind != LENGTH)
        return false;
    return reader->oip ? !reader->tensor_end && field->number == INFER_RAW
                       : reader->tensor_end && field->number == TENSOR_DATA;
}

static enum pb_step begin_contents(struct pb_reader *reader, const struct field *field)
{
    if (!field->value || reader->holes_count == PB_INPUTS_MAX)
        return PB_OTHER;
    if (reader->oip && reader->holes_count == reader->inputs_count)
        return PB_OTHER;
    /* What follows the data of a tensor would describe it too late. */
    if (!reader->oip && field->at + reader->holes_bytes + field->value != reader->tensor_end)
        return PB_OTHER;
    if (!reader->oip)
        reader->inputs[reader->inputs_count - 1].has_data = true;
    reader->parsed = field->at;
    reader->next = (struct pb_hole){(uint16_t)field->at, NULL, field->value};
    return PB_TENSOR;
}

/* Reads tag and length or value of the field at `parsed`. */
static enum pb_step read_field(const struct pb_reader *reader, struct field *field)
{
    const uint8_t *at = reader->head + reader->parsed, *end = reader->head + reader->head_size;
    uint64_t tag;
    int read = pb_varint(&at, end, &tag);
    if (read == 1 && tag <= UINT32_MAX) {
        field->number = (uint32_t)(tag >> 3);
        field->kind = tag & 7;
        read = field->kind == VARINT || field->kind == LENGTH ? pb_varint(&at, end, &field->value) : -1;
    } else if (read == 1) {
        read = -1;
    }
    if (read != 1)
        return read ? PB_OTHER : PB_MORE;
    field->at = (size_t)(at - reader->head);
    field->message_end = reader->tensor_end ? reader->tensor_end : reader->length;
    size_t offset = field->at + reader->holes_bytes;
    if (offset > field->message_end || (field->kind == LENGTH && field->value > field->message_end - offset))
        return PB_OTHER;
    return PB_TENSOR; /* it is there */
}

static enum pb_step parse(struct pb_reader *reader)
{
    for (;;) {
        if (reader->tensor_end && reader->parsed + reader->holes_bytes == reader->tensor_end) {
            if (!reader->oip && !reader->inputs[reader->inputs_count - 1].has_data)
                return PB_OTHER;
            reader->tensor_end = 0;
        }
        struct field field;
        enum pb_step step = reader->parsed == reader->head_size ? PB_MORE : read_field(reader, &field);
        if (step != PB_TENSOR)
            return step;
        if (is_contents(reader, &field))
            return begin_contents(reader, &field);
        bool is_input = !reader->tensor_end && field.kind == LENGTH && field.number == INFER_INPUT;
        size_t size = field.kind == LENGTH && !is_input ? field.value : 0;
        if (size > reader->head_size - field.at)
            return size > PB_HEAD_MAX - field.at ? PB_OTHER : PB_MORE;
        bool plain = is_input             ? begin_input(reader, &field)
                     : reader->tensor_end ? read_input_field(reader, &field)
                     : reader->oip        ? read_infer_field(reader, &field)
                                          : read_predict_field(reader, &field);
        if (!plain)
            return PB_OTHER;
        reader->parsed = field.at + size;
    }
}
_Static_assert((int)INFER_INPUT == (int)PREDICT_INPUT, "both protocols number the inputs alike");

static void fill_sink(struct pb_reader *reader)
{
    size_t size = reader->rest_size < reader->sink_left ? reader->rest_size : reader->sink_left;
    memcpy(reader->sink, reader->rest, size);
    reader->sink += size;
    reader->sink_left -= size;
    reader->rest += size;
    reader->rest_size -= size;
}

enum pb_step pb_read(struct pb_reader *reader)
{
    for (;;) {
        if (reader->sink_left && reader->rest_size)
            fill_sink(reader);
        if (reader->sink_left)
            return PB_MORE;
        enum pb_step step = parse(reader);
        if (step != PB_MORE || !reader->rest_size)
            return step;
        size_t room = PB_HEAD_MAX - reader->head_size;
        size_t size = reader->rest_size < HEAD_STEP ? reader->rest_size : HEAD_STEP;
        if (size > room)
            size = room;
        if (!size)
            return PB_OTHER;
        memcpy(reader->head + reader->head_size, reader->rest, size);
        reader->head_size += size;
        reader->rest += size;
        reader->rest_size -= size;
    }
}

void pb_place(struct pb_reader *reader, uint8_t *to)
{
    struct pb_hole *hole = &reader->holes[reader->holes_count++];
    *hole = reader->next;
    hole->bytes = to;
    uint8_t *behind = reader->head + hole->at;
    size_t there = reader->head_size - hole->at;
    size_t size = there < hole->size ? there : hole->size;
    memcpy(to, behind, size);
    memmove(behind, behind + size, there - size);
    reader->head_size -= size;
    reader->holes_bytes += hole->size;
    reader->sink = to + size;
    reader->sink_left = hole->size - size;
}

bool pb_is_whole(const struct pb_reader *reader)
{
    return reader->parsed == reader->head_size && !reader->sink_left && !reader->rest_size && !reader->tensor_end &&
           reader->head_size + reader->holes_bytes == reader->length && reader->holes_count == reader->inputs_count;
}

size_t pb_replay(const struct pb_reader *reader, uint8_t *to)
{
    size_t at = 0;
    uint8_t *out = to;
    for (unsigned number = 0; number < reader->holes_count; number++) {
        const struct pb_hole *hole = &reader->holes[number];
        memcpy(out, reader->head + at, hole->at - at);
        out += hole->at - at;
        at = hole->at;
        /* Only the last one can be filled in part. */
        size_t size = hole->size - (number + 1 == reader->holes_count ? reader->sink_left : 0);
        memcpy(out, hole->bytes, size);
        out += size;
    }
    memcpy(out, reader->head + at, reader->head_size - at);
    out += reader->head_size - at;
    if (reader->rest_size)
        memcpy(out, reader->rest, reader->rest_size);
    return (size_t)(out - to) + reader->rest_size;
}
