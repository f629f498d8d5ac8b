/* Numbers by which Python names calls: never the same one twice, so that a late command reaches nobody. */
#ifndef PN_IDS_H
#define PN_IDS_H

#include <stdint.h>

struct pn_stream;

/* 0: no memory. */
uint64_t id_new(struct pn_stream *stream);
/* NULL: it is gone. */
struct pn_stream *id_find(uint64_t id);
void id_free(uint64_t id);
void ids_forget(void);

#endif
