/* Reads the two inference requests (PredictRequest, ModelInferRequest) as their bytes come: what stands around the
 * tensors is kept in a small head, the tensors go straight to where the caller wants them. Only the plain case is read;
 * whatever else comes is given back byte by byte, for Python to judge. */
#ifndef PN_PB_READ_H
#define PN_PB_READ_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { PB_INPUTS_MAX = 16, PB_OUTPUTS_MAX = 16, PB_RANK_MAX = 8, PB_HEAD_MAX = 1024 };

/* Bytes in the head of a message. */
struct pb_span {
    uint16_t at, size;
};

struct pb_input {
    struct pb_span name;
    bool has_name, has_dtype, has_shape, has_data;
    uint8_t dtype; /* DType of the transport, 0 for one that there is not */
    uint8_t rank;
    int64_t shape[PB_RANK_MAX];
};

/* A tensor's bytes: cut out of the head at `at`. */
struct pb_hole {
    uint16_t at;
    uint8_t *bytes;
    size_t size;
};

enum pb_step {
    PB_MORE,   /* all that came was read */
    PB_TENSOR, /* the bytes of a tensor follow: call pb_place and read on */
    PB_OTHER,  /* not the plain case */
};

struct pb_reader {
    bool oip;      /* ModelInferRequest, else PredictRequest */
    size_t length; /* of the whole message */
    const uint8_t *rest;
    size_t rest_size; /* given and not yet read */
    size_t parsed;    /* of the head */
    size_t head_size;
    size_t holes_bytes; /* of all holes in the head before `parsed` */
    size_t tensor_end;  /* where in the message the input ends that is being read; 0 outside of one */
    uint8_t *sink;
    size_t sink_left;
    struct pb_hole next; /* after PB_TENSOR: what pb_place places */
    bool has_model, has_version, has_id;
    struct pb_span model, version_text, id;
    uint64_t version; /* of predictd.v1 */
    unsigned inputs_count, outputs_count, holes_count;
    struct pb_span outputs[PB_OUTPUTS_MAX];
    struct pb_hole holes[PB_INPUTS_MAX]; /* hole n holds the bytes of input n */
    struct pb_input inputs[PB_INPUTS_MAX];
    uint8_t head[PB_HEAD_MAX];
};

/* Begins a message. */
void pb_begin(struct pb_reader *reader, bool oip, size_t length);

/* Gives the next bytes of the message, which must live until pb_read says PB_MORE or pb_replay was called. */
void pb_give(struct pb_reader *reader, const uint8_t *bytes, size_t size);

/* Reads on. */
enum pb_step pb_read(struct pb_reader *reader);

/* After PB_TENSOR: the bytes, as many as `next.size` says, go to `to`. */
void pb_place(struct pb_reader *reader, uint8_t *to);

/* All bytes were given: whether they are a whole message of the plain case. */
bool pb_is_whole(const struct pb_reader *reader);

/* Writes what was given so far, byte by byte. Gives how many that are. */
size_t pb_replay(const struct pb_reader *reader, uint8_t *to);

/* Reads a varint from `*at`, at most up to `end`. 1: `*value` is it, and `*at` behind it. 0: it is not whole. -1: none. */
int pb_varint(const uint8_t **at, const uint8_t *end, uint64_t *value);

/* The element type that the Open Inference Protocol writes so; 0 for none. */
uint8_t pb_dtype_of(const uint8_t *text, size_t size);

#endif
