/* Listening sockets. Python binds them and passes them on. */
#ifndef PN_LISTENER_H
#define PN_LISTENER_H

#include <stdbool.h>

/* Accepts from a bound, listening, non-blocking socket from now on, which is closed by listeners_close. Gives 0 or an
 * errno. */
int listener_add(int descriptor, bool tls);
void listeners_close(void);

#endif
