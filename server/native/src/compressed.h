/* Compressed messages of calls that hot serves. They are received as a whole, as they come, and inflated at once for hot:
 * of what they are in plain nothing is kept but what hot takes. */
#ifndef PN_COMPRESSED_H
#define PN_COMPRESSED_H

#include <stdbool.h>

#include "call.h"

struct pn_stream;

/* Whether the message that begins is worth receiving for hot. */
bool compressed_may_be_hot(const struct pn_stream *stream);
/* It is whole. PN_TAKEN, PN_REFUSE, or PN_BRIDGE: it is Python's as it came. */
enum pn_verdict compressed_offer(struct pn_stream *stream);

#endif
