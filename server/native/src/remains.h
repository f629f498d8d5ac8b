/* Memory of large messages that nobody wants any more. To give 100 MiB back to the system takes tens of milliseconds,
 * for which others would wait: so it goes piece by piece, one a round. */
#ifndef PN_REMAINS_H
#define PN_REMAINS_H

#include <stdbool.h>

#include "bytes.h"

/* Frees them, sooner or later. They are empty then. */
void remains_free(struct pn_bytes *bytes);
void remains_shrink(void);
bool remains_left(void);
void remains_forget(void);

#endif
