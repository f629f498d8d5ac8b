#include "glitches.h"

/* So many at once, then so many a second, and so many for each frame of headers or data in either direction. */
enum { AT_ONCE = 2000, PER_SECOND = 200, EARNED = 10 };
#define NS_FOR_ONE (UINT64_C(1000000000) / PER_SECOND)

static bool carries_nothing(const nghttp2_frame_hd *head)
{
    switch (head->type) {
    case NGHTTP2_HEADERS:
    case NGHTTP2_CONTINUATION: /* nghttp2 has limits for these two */
    case NGHTTP2_RST_STREAM:
        return false;
    case NGHTTP2_DATA:
        return head->length == 0 && (head->flags & NGHTTP2_FLAG_END_STREAM) == 0;
    default:
        return true;
    }
}

static void let_time_pass(struct pn_glitches *glitches, uint64_t now_ns)
{
    uint64_t allowed = (now_ns - glitches->since_ns) / NS_FOR_ONE;
    glitches->since_ns += allowed * NS_FOR_ONE;
    glitches->used -= allowed < glitches->used ? (uint32_t)allowed : glitches->used;
}

bool glitches_allow(struct pn_glitches *glitches, const nghttp2_frame_hd *head, uint64_t now_ns)
{
    if (!carries_nothing(head)) {
        if (head->type == NGHTTP2_HEADERS || head->type == NGHTTP2_DATA)
            glitches_earn(glitches);
        return true;
    }
    if (glitches->used >= AT_ONCE)
        let_time_pass(glitches, now_ns);
    if (glitches->used >= AT_ONCE)
        return false;
    glitches->used++;
    return true;
}

void glitches_earn(struct pn_glitches *glitches)
{
    glitches->used -= EARNED < glitches->used ? EARNED : glitches->used;
}
