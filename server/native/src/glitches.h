/* Frames that carry nothing. Each costs more to read than to send, and no client needs many. */
#ifndef PN_GLITCHES_H
#define PN_GLITCHES_H

#include <nghttp2/nghttp2.h>
#include <stdbool.h>
#include <stdint.h>

struct pn_glitches {
    uint32_t used;
    uint64_t since_ns; /* until when those that time allows were taken off */
};

/* A frame begins. False: it is one too many. */
bool glitches_allow(struct pn_glitches *glitches, const nghttp2_frame_hd *head, uint64_t now_ns);
/* Headers or data went one way or the other: with them a client may move windows, and ask with PINGs. */
void glitches_earn(struct pn_glitches *glitches);

#endif
