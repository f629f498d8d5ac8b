#include "connection.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>

void connection_peer(const struct pn_connection *connection, char *text, size_t room)
{
    char address[INET6_ADDRSTRLEN];
    if (connection->peer.ss_family == AF_INET) {
        const struct sockaddr_in *peer = (const struct sockaddr_in *)(const void *)&connection->peer;
        inet_ntop(AF_INET, &peer->sin_addr, address, sizeof address);
        snprintf(text, room, "ipv4:%s:%u", address, ntohs(peer->sin_port));
    } else if (connection->peer.ss_family == AF_INET6) {
        const struct sockaddr_in6 *peer = (const struct sockaddr_in6 *)(const void *)&connection->peer;
        bool is_four = IN6_IS_ADDR_V4MAPPED(&peer->sin6_addr);
        if (is_four)
            inet_ntop(AF_INET, peer->sin6_addr.s6_addr + 12, address, sizeof address);
        else
            inet_ntop(AF_INET6, &peer->sin6_addr, address, sizeof address);
        snprintf(text, room, is_four ? "ipv4:%s:%u" : "ipv6:%%5B%s%%5D:%u", address, ntohs(peer->sin6_port));
    } else {
        snprintf(text, room, "unix:");
    }
}
