#include "pb_write.h"

#include <string.h>

enum { VARINT = 0, LENGTH = 2 };

/* All tags here take one byte. */
enum { TAG_BYTES = 1 };

/* Numbers of fields. */
enum { PREDICT_ID = 1, PREDICT_MODEL = 2, PREDICT_VERSION = 3, PREDICT_OUTPUT = 4, PREDICT_TIMING = 5 };
enum { TIMING_QUEUE = 1, TIMING_COMPUTE = 2, TIMING_ROWS = 3 };
enum { TENSOR_NAME = 1, TENSOR_DTYPE = 2, TENSOR_SHAPE = 3, TENSOR_DATA = 4 };
enum { INFER_MODEL = 1, INFER_VERSION = 2, INFER_ID = 3, INFER_PARAMETER = 4, INFER_OUTPUT = 5, INFER_RAW = 6 };
enum { STREAMED_ID = 1, STREAMED_RESPONSE = 2 };

/* The entry "triton_final_response": bool_param true. */
static const uint8_t final_response[] = "\x0a\x15triton_final_response\x12\x02\x08\x01";
enum { FINAL_RESPONSE_BYTES = sizeof final_response - 1 };

static const struct pb_bytes dtype_names[] = {
    {NULL, 0},
    {(const uint8_t *)"BOOL", 4},   {(const uint8_t *)"UINT8", 5},  {(const uint8_t *)"UINT16", 6},
    {(const uint8_t *)"UINT32", 6}, {(const uint8_t *)"UINT64", 6}, {(const uint8_t *)"INT8", 4},
    {(const uint8_t *)"INT16", 5},  {(const uint8_t *)"INT32", 5},  {(const uint8_t *)"INT64", 5},
    {(const uint8_t *)"FP16", 4},   {(const uint8_t *)"BF16", 4},   {(const uint8_t *)"FP32", 4},
    {(const uint8_t *)"FP64", 4},   {(const uint8_t *)"BYTES", 5},
};

static size_t varint_size(uint64_t value)
{
    size_t size = 1;
    for (; value > 0x7F; value >>= 7)
        size++;
    return size;
}

static uint8_t *put_varint(uint8_t *to, uint64_t value)
{
    for (; value > 0x7F; value >>= 7)
        *to++ = (uint8_t)(value | 0x80);
    *to++ = (uint8_t)value;
    return to;
}

static uint8_t *put_head(uint8_t *to, unsigned number, size_t size)
{
    *to++ = (uint8_t)(number << 3 | LENGTH);
    return put_varint(to, size);
}

static size_t length_size(size_t size) { return TAG_BYTES + varint_size(size) + size; }

static uint8_t *put_raw(uint8_t *to, struct pb_bytes field)
{
    if (field.size)
        memcpy(to, field.bytes, field.size);
    return to + field.size;
}

/* A string; as everywhere in proto3 an empty one is left out. */
static size_t text_size(struct pb_bytes text) { return text.size ? length_size(text.size) : 0; }

static uint8_t *put_text(uint8_t *to, unsigned number, struct pb_bytes text)
{
    return text.size ? put_raw(put_head(to, number, text.size), text) : to;
}

/* A number; 0 is left out. */
static size_t number_size(uint64_t value) { return value ? TAG_BYTES + varint_size(value) : 0; }

static uint8_t *put_number(uint8_t *to, unsigned number, uint64_t value)
{
    if (!value)
        return to;
    *to++ = (uint8_t)(number << 3 | VARINT);
    return put_varint(to, value);
}

/* Name, type and shape stand in the same fields in both protocols. */
static void measure_output(struct pb_output *output, bool oip)
{
    output->shape_size = 0;
    for (unsigned at = 0; at < output->rank; at++)
        output->shape_size += varint_size((uint64_t)output->shape[at]);
    output->about_size = text_size(output->name);
    output->about_size += oip ? length_size(dtype_names[output->dtype].size) : number_size(output->dtype);
    if (output->rank)
        output->about_size += length_size(output->shape_size);
    if (!oip)
        output->about_size += TAG_BYTES + varint_size(output->data.size);
}

static uint8_t *put_about(uint8_t *to, const struct pb_output *output, bool oip)
{
    to = put_text(to, TENSOR_NAME, output->name);
    to = oip ? put_text(to, TENSOR_DTYPE, dtype_names[output->dtype]) : put_number(to, TENSOR_DTYPE, output->dtype);
    if (!output->rank)
        return to;
    to = put_head(to, TENSOR_SHAPE, output->shape_size);
    for (unsigned at = 0; at < output->rank; at++)
        to = put_varint(to, (uint64_t)output->shape[at]);
    return to;
}

static size_t measure_predict(struct pb_answer *answer)
{
    answer->timing_size =
        number_size(answer->queue_ns) + number_size(answer->compute_ns) + number_size(answer->batch_rows);
    size_t size = text_size(answer->id) + text_size(answer->model) + number_size(answer->version) +
                  length_size(answer->timing_size);
    for (unsigned at = 0; at < answer->outputs_count; at++) {
        measure_output(&answer->outputs[at], false);
        size += length_size(answer->outputs[at].about_size + answer->outputs[at].data.size);
    }
    return size;
}

static uint8_t *put_predict(const struct pb_answer *answer, uint8_t *to)
{
    to = put_text(to, PREDICT_ID, answer->id);
    to = put_text(to, PREDICT_MODEL, answer->model);
    to = put_number(to, PREDICT_VERSION, answer->version);
    to = put_head(to, PREDICT_TIMING, answer->timing_size);
    to = put_number(to, TIMING_QUEUE, answer->queue_ns);
    to = put_number(to, TIMING_COMPUTE, answer->compute_ns);
    to = put_number(to, TIMING_ROWS, answer->batch_rows);
    for (unsigned at = 0; at < answer->outputs_count; at++) {
        const struct pb_output *output = &answer->outputs[at];
        to = put_head(to, PREDICT_OUTPUT, output->about_size + output->data.size);
        to = put_about(to, output, false);
        to = put_raw(put_head(to, TENSOR_DATA, output->data.size), output->data);
    }
    return to;
}

static size_t measure_infer(struct pb_answer *answer)
{
    size_t size = text_size(answer->model) + text_size(answer->version_text) + text_size(answer->id);
    if (answer->stream)
        size += length_size(FINAL_RESPONSE_BYTES);
    for (unsigned at = 0; at < answer->outputs_count; at++) {
        measure_output(&answer->outputs[at], true);
        size += length_size(answer->outputs[at].about_size) + length_size(answer->outputs[at].data.size);
    }
    return size;
}

static uint8_t *put_infer(const struct pb_answer *answer, uint8_t *to)
{
    to = put_text(to, INFER_MODEL, answer->model);
    to = put_text(to, INFER_VERSION, answer->version_text);
    to = put_text(to, INFER_ID, answer->id);
    if (answer->stream)
        to = put_text(to, INFER_PARAMETER, (struct pb_bytes){final_response, FINAL_RESPONSE_BYTES});
    for (unsigned at = 0; at < answer->outputs_count; at++) {
        to = put_head(to, INFER_OUTPUT, answer->outputs[at].about_size);
        to = put_about(to, &answer->outputs[at], true);
    }
    for (unsigned at = 0; at < answer->outputs_count; at++)
        to = put_raw(put_head(to, INFER_RAW, answer->outputs[at].data.size), answer->outputs[at].data);
    return to;
}

size_t pb_answer_size(struct pb_answer *answer)
{
    answer->response_size = answer->oip ? measure_infer(answer) : measure_predict(answer);
    if (!answer->stream)
        return answer->response_size;
    return (answer->oip ? 0 : text_size(answer->id)) + length_size(answer->response_size);
}

uint8_t *pb_answer_write(const struct pb_answer *answer, uint8_t *to)
{
    if (answer->stream) {
        if (!answer->oip)
            to = put_text(to, STREAMED_ID, answer->id);
        to = put_head(to, STREAMED_RESPONSE, answer->response_size);
    }
    return answer->oip ? put_infer(answer, to) : put_predict(answer, to);
}
