/* Which callers may have which lanes: what Python decided when it saw each of them first, until it takes all of it back.
 * Nothing is decided here; who is not known is Python's to look at. */
#ifndef PN_GRANTS_H
#define PN_GRANTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct pn_call;

enum { CREDENTIAL_BYTES = 32, GRANTS_MAX = 4096 };

/* What a caller shows, as its SHA-256: nothing is kept by which somebody could call, and nobody can choose a digest that
 * is nearly another's, so looking it up tells nothing by the time that it takes. frontend/native/context.py has the same. */
struct credential {
    uint8_t digest[CREDENTIAL_BYTES];
};

struct grant;

/* What a call shows. False: nothing that could be known here. */
bool credential_of(const struct pn_call *call, struct credential *credential);

/* What those may do who show this, now. NULL: that is Python's to say. */
const struct grant *grants_find(const struct credential *credential);
bool grant_has(const struct grant *grant, uint32_t lane);
bool grant_has_every_lane(const struct grant *grant);

/* `lanes` are numbers of 32 bits, which need not be aligned. Gives a text of what is wrong, or NULL. */
const char *grants_add(const struct credential *credential, uint64_t expires_unix_ns, bool every_lane,
                       const uint8_t *lanes, size_t lanes_count);
/* Nobody is known any more. */
void grants_clear(void);
/* At the end. */
void grants_forget(void);

#endif
