/* How many requests each client has in flight, Python's among them, where that is limited. A client is an address. */
#ifndef PN_CLIENTS_H
#define PN_CLIENTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct client;

/* 0: there is no limit, and nothing is counted. */
void clients_limit(uint32_t requests);
bool clients_limited(void);

/* The client whose calls come from a peer, as gRPC writes that; it is known until clients_let_go. NULL: no memory. */
struct client *clients_know(const char *peer);
void clients_let_go(struct client *client);

/* One request more of it. False: it has as many as it may have. */
bool client_enter(struct client *client);
void client_leave(struct client *client);
bool client_is_full(const struct client *client);

/* The same for Python, which knows the address alone. */
bool clients_enter(const uint8_t *address, size_t size);
void clients_leave(const uint8_t *address, size_t size);
uint32_t clients_in_flight(const uint8_t *address, size_t size);

void clients_clear(void);

#endif
