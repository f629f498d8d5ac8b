#include "clients.h"

#include <stdlib.h>
#include <string.h>

enum { BUCKETS = 256 };

struct client {
    struct client *next;
    uint32_t in_flight;
    uint32_t known; /* by so many, each of its requests among them */
    size_t size;
    uint8_t address[];
};

static struct client *clients[BUCKETS];
static uint32_t limit;

void clients_limit(uint32_t requests) { limit = requests; }

bool clients_limited(void) { return limit != 0; }

/* Where the pointer to the client stands, or would. */
static struct client **place_of(const uint8_t *address, size_t size)
{
    uint32_t hash = 2166136261U;
    for (size_t at = 0; at < size; at++)
        hash = (hash ^ address[at]) * 16777619U;
    struct client **place = &clients[hash % BUCKETS];
    while (*place && ((*place)->size != size || memcmp((*place)->address, address, size) != 0))
        place = &(*place)->next;
    return place;
}

static struct client *know(const uint8_t *address, size_t size)
{
    struct client **place = place_of(address, size);
    struct client *client = *place;
    if (!client) {
        client = malloc(sizeof *client + size);
        if (!client)
            return NULL;
        *client = (struct client){.size = size};
        if (size)
            memcpy(client->address, address, size);
        *place = client;
    }
    client->known++;
    return client;
}

/* Without the port, which differs between connections: as frontend/clients.py. */
struct client *clients_know(const char *peer)
{
    size_t size = strlen(peer);
    const char *port = strrchr(peer, ':');
    if (port && (strncmp(peer, "ipv4:", 5) == 0 || strncmp(peer, "ipv6:", 5) == 0))
        size = (size_t)(port - peer);
    return know((const uint8_t *)peer, size);
}

void clients_let_go(struct client *client)
{
    if (--client->known)
        return;
    *place_of(client->address, client->size) = client->next;
    free(client);
}

bool client_is_full(const struct client *client) { return client->in_flight >= limit; }

bool client_enter(struct client *client)
{
    if (client_is_full(client))
        return false;
    client->in_flight++;
    client->known++;
    return true;
}

void client_leave(struct client *client)
{
    client->in_flight--;
    clients_let_go(client);
}

bool clients_enter(const uint8_t *address, size_t size)
{
    struct client *client = know(address, size);
    if (!client)
        return false;
    bool entered = client_enter(client);
    clients_let_go(client);
    return entered;
}

void clients_leave(const uint8_t *address, size_t size)
{
    struct client *client = *place_of(address, size);
    if (client && client->in_flight)
        client_leave(client);
}

uint32_t clients_in_flight(const uint8_t *address, size_t size)
{
    const struct client *client = *place_of(address, size);
    return client ? client->in_flight : 0;
}

void clients_clear(void)
{
    for (unsigned bucket = 0; bucket < BUCKETS; bucket++) {
        while (clients[bucket]) {
            struct client *client = clients[bucket];
            clients[bucket] = client->next;
            free(client);
        }
    }
    limit = 0;
}
