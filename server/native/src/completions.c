/* What workers have completed: answers are copied out of their memory into messages at once. Nothing that stands in a
 * worker's memory is trusted, and each number is read from it once. What is no plain answer is handed to Python. */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "hot.h"
#include "pb_write.h"
#include "request_log.h"

/* An answer so large is given back before the next one is copied. */
enum { LARGE_BYTES = 256 * 1024 };
enum { READ_RECORDS = 1024, ALIGNMENT = 64, DTYPE_BYTES = 14 };

static const uint8_t item_bytes[] = {0, 1, 1, 2, 4, 8, 1, 2, 4, 8, 2, 2, 4, 8, 0};

/* Records of Python's that its pipe had no room for. */
static struct completion kept[READ_RECORDS];
static size_t kept_count;
/* Something that is no record was in the pipe: where the next one begins is not known, so answers may be lost. */
static bool torn;

/* A response block that is read. */
struct source {
    const uint8_t *block;
    size_t size;  /* of the block */
    size_t bytes; /* of it in use */
    size_t at;    /* of the next descriptor */
};

static bool copy_out(const struct source *source, size_t at, void *to, size_t size)
{
    if (at > source->size || size > source->size - at)
        return false;
    memcpy(to, source->block + at, size);
    return true;
}

/* The number of elements, and of bytes where these have a size. False: it has other bytes, or they do not fit. */
static bool has_its_bytes(const struct output_descriptor *output, const int64_t *shape, const struct source *source)
{
    uint64_t elements = 1;
    if (!output->dtype || output->dtype > DTYPE_BYTES)
        return false;
    for (unsigned at = 0; at < output->rank; at++)
        if (shape[at] < 0 || __builtin_mul_overflow(elements, (uint64_t)shape[at], &elements))
            return false;
    if (output->offset % ALIGNMENT || output->offset > source->bytes || output->nbytes > source->bytes - output->offset)
        return false;
    uint64_t bytes;
    if (output->dtype == DTYPE_BYTES)
        return !__builtin_mul_overflow(elements, (uint64_t)4, &bytes) && bytes <= output->nbytes;
    return !__builtin_mul_overflow(elements, (uint64_t)item_bytes[output->dtype], &bytes) && bytes == output->nbytes;
}

static bool has_its_rows(const struct output_descriptor *output, const int64_t *shape)
{
    uint64_t rows = output->rank ? (uint64_t)shape[0] : 0, bytes;
    if (output->row_bytes &&
        (__builtin_mul_overflow(output->row_bytes, rows, &bytes) || bytes != output->nbytes))
        return false;
    if (!output->row_offsets)
        return true;
    uint64_t end;
    return output->row_offsets % ALIGNMENT == 0 && !__builtin_mul_overflow(rows + 1, (uint64_t)8, &bytes) &&
           !__builtin_add_overflow(output->row_offsets, bytes, &end) && end <= output->offset;
}

/* Cuts the rows of a request out of an output. */
static bool cut(const struct source *source, const struct output_descriptor *output, const int64_t *shape,
                const struct completion *record, bool batches, struct pb_output *result)
{
    uint64_t first = 0, last = output->nbytes;
    result->dtype = output->dtype;
    result->rank = output->rank;
    if (output->rank)
        memcpy(result->shape, shape, output->rank * sizeof *shape);
    if (batches) {
        if (!output->rank || (uint64_t)record->first_row + record->rows > (uint64_t)shape[0])
            return false;
        result->shape[0] = record->rows;
        if (output->row_offsets) {
            uint64_t table = output->row_offsets + 8 * (uint64_t)record->first_row;
            if (!copy_out(source, table, &first, 8) || !copy_out(source, table + 8 * (uint64_t)record->rows, &last, 8))
                return false;
        } else {
            first = record->first_row * output->row_bytes;
            last = first + record->rows * output->row_bytes;
        }
    }
    if (first > last || last > output->nbytes)
        return false;
    result->data = (struct pb_bytes){source->block + output->offset + first, last - first};
    return true;
}

static bool read_output(struct source *source, const struct completion *record, bool batches, uint64_t *lowest,
                        struct pb_output *result)
{
    struct output_descriptor output;
    int64_t shape[PB_RANK_MAX];
    if (!copy_out(source, source->at, &output, sizeof output) || output.rank > PB_RANK_MAX)
        return false;
    source->at += sizeof output;
    if (!copy_out(source, source->at, shape, output.rank * sizeof shape[0]))
        return false;
    source->at += output.rank * sizeof shape[0];
    if (output.offset < *lowest)
        *lowest = output.offset;
    if (output.row_offsets && output.row_offsets < *lowest)
        *lowest = output.row_offsets;
    return has_its_bytes(&output, shape, source) && has_its_rows(&output, shape) &&
           cut(source, &output, shape, record, batches, result);
}

/* Reads the outputs that a request asked for. False: the block does not hold them. */
static bool read_answer(const struct request *request, const struct completion *record, struct source *source,
                        struct pb_answer *answer)
{
    struct response_header header;
    struct pb_output outputs[PB_OUTPUTS_MAX];
    const struct lane *lane = request->lane;
    if (!copy_out(source, 0, &header, sizeof header) || header.magic != RESPONSE_MAGIC || header.bytes > source->size ||
        header.outputs != lane->outputs_count)
        return false;
    source->bytes = header.bytes;
    source->at = sizeof header;
    uint64_t lowest = UINT64_MAX, size = 0;
    for (unsigned at = 0; at < header.outputs; at++)
        if (!read_output(source, record, lane->batches, &lowest, &outputs[at]))
            return false;
    if (lowest < source->at)
        return false;
    answer->outputs_count = request->wanted_count;
    for (unsigned at = 0; at < request->wanted_count; at++) {
        answer->outputs[at] = outputs[request->wanted[at]];
        answer->outputs[at].name = lane->outputs[request->wanted[at]];
        size += answer->outputs[at].data.size;
    }
    return size <= lane->answer_limit;
}

/* Makes the message of an answer. False: it is none, or Python has to say why it cannot be. */
static bool make_message(const struct request *request, const struct completion *record, const struct worker *worker,
                         uint8_t **message, size_t *length)
{
    struct source source;
    struct pb_answer answer;
    const struct lane *lane = request->lane;
    source.block = worker ? links_response(worker, record->segment, record->block, &source.size) : NULL;
    if (!source.block || (lane->batches && record->rows != request->rows) ||
        !read_answer(request, record, &source, &answer))
        return false;
    const struct pb_reader *reader = &request->reader;
    answer.oip = reader->oip;
    answer.stream = request->rpc->stream;
    answer.id = (struct pb_bytes){reader->head + reader->id.at, reader->has_id ? reader->id.size : 0};
    answer.model = lane->model;
    answer.version = lane->version;
    answer.version_text = lane->version_text;
    answer.queue_ns = record->queue_ns;
    answer.compute_ns = record->compute_ns;
    answer.batch_rows = record->batch_rows;
    *length = pb_answer_size(&answer);
    if (*length > hot_settings.message_limit || !(*message = call_buffer(*length)))
        return false;
    pb_answer_write(&answer, *message);
    return true;
}

static void complete(struct request *request, const struct completion *record, struct worker *worker)
{
    struct lane *lane = request->lane;
    uint8_t *message = NULL;
    size_t length = 0;
    uint64_t now_ns = loop_now_ns();
    bool names_block = record->segment != NO_SEGMENT;
    /* Who has waited since before a worker came or went says nothing of how long one waits. */
    if (record->status == STATUS_OK && request->accepted_ns >= lane->pool->changed_ns)
        expectation_answered(&lane->expectation, request->ahead, record->queue_ns, record->compute_ns, now_ns);
    if (request->rpc && record->status == STATUS_OK && make_message(request, record, worker, &message, &length)) {
        uint64_t total_ns = now_ns > request->accepted_ns ? now_ns - request->accepted_ns : 0;
        counts_answered(request_counts(request), total_ns, record->queue_ns, record->compute_ns, request->rows);
        ways_count(WAY_HOT);
        request_log_answered(request, record, total_ns);
        rpc_answer(request, message, length);
    } else if (request->rpc) {
        hand_over(request, HANDED_COMPLETED, record);
        return;
    }
    if (names_block && worker)
        links_release(worker, hot_settings.frontend, record->segment, record->block);
    if (length >= LARGE_BYTES)
        links_flush_releases();
    end_request(request);
}

static void take_record(const struct completion *record)
{
    struct request *request =
        record->status == STATUS_PROBE ? NULL : requests_find(record->slot, record->generation);
    if (request && request->state == REQUEST_OUT) {
        complete(request, record, links_worker(record->worker));
        return;
    }
    /* Python's own, a probe, or nobody's: the last only has its block given back, which Python does alike. */
    kept[kept_count++] = *record;
}

void completions_clear(void)
{
    kept_count = 0;
    torn = false;
}

/* Python's pipe gets something that is no record either: it ends the front end, as it does for a pipe of its own. */
static void pass_on_torn(void)
{
    if (torn && write(hot_settings.python_records, "", 1) == 1)
        torn = false;
}

bool completions_pass_on(void)
{
    size_t at = 0;
    while (at < kept_count) {
        size_t count = kept_count - at < RECORDS_PER_WRITE ? kept_count - at : RECORDS_PER_WRITE;
        ssize_t written = write(hot_settings.python_records, kept + at, count * RECORD_BYTES);
        if (written < 0 && errno == EINTR)
            continue;
        if (written < 0)
            break;
        at += count;
    }
    kept_count -= at;
    memmove(kept, kept + at, kept_count * sizeof kept[0]);
    if (!kept_count)
        pass_on_torn();
    return !kept_count && !torn;
}

bool completions_read(void)
{
    static struct completion records[READ_RECORDS];
    for (;;) {
        /* What one read gives must find room. */
        if ((kept_count || torn) && !completions_pass_on())
            return false;
        ssize_t size = read(hot_settings.completions, records, sizeof records);
        if (size < 0 && errno == EINTR)
            continue;
        if (size <= 0)
            return true;
        for (size_t at = 0; at < (size_t)size / RECORD_BYTES; at++)
            take_record(&records[at]);
        torn |= size % RECORD_BYTES != 0;
        completions_pass_on();
        if ((size_t)size < sizeof records)
            return !kept_count && !torn;
    }
}
