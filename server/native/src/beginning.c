/* The inference half: the headers of a call. Who calls, and is it worth receiving? */
#include <stdlib.h>

#include "hot.h"

static struct rpc *free_rpcs;

static struct rpc *new_rpc(struct pn_call *call)
{
    struct rpc *rpc = free_rpcs;
    if (rpc)
        free_rpcs = rpc->next_free;
    else if (!(rpc = malloc(sizeof *rpc)))
        return NULL;
    *rpc = (struct rpc){.call = call};
    rpc->oip = call->method == PN_MODEL_INFER || call->method == PN_MODEL_STREAM_INFER;
    rpc->stream = call->method == PN_PREDICT_STREAM || call->method == PN_MODEL_STREAM_INFER;
    return rpc;
}

void rpc_free(struct rpc *rpc)
{
    if (rpc->client)
        clients_let_go(rpc->client);
    rpc->next_free = free_rpcs;
    free_rpcs = rpc;
}

const struct grant *rpc_grant(const struct rpc *rpc)
{
    return rpc->shown ? grants_find(&rpc->credential) : NULL;
}

/* Looks at who calls, before a message is received. */
static enum pn_verdict look(struct rpc *rpc, enum way *why)
{
    struct pn_call *call = rpc->call;
    char peer[PN_PEER_BYTES];
    rpc->shown = hot_settings.guarded && credential_of(call, &rpc->credential);
    if (clients_limited()) {
        call_peer(call, peer, sizeof peer);
        rpc->client = clients_know(peer);
    }
    /* Python lets a stream in at its headers, and looks at its requests one by one. */
    if (rpc->stream)
        return hot_settings.guarded ? PN_BOTH : PN_MORE;
    const struct grant *grant = rpc_grant(rpc);
    if (hot_settings.guarded && !grant)
        *why = WAY_CALLER;
    else if (rpc->client && client_is_full(rpc->client))
        *why = WAY_CLIENT;
    else
        return refuse_unread(call, grant) ? PN_REFUSE : PN_MORE;
    return PN_BRIDGE;
}

enum pn_verdict hot_begin(struct pn_call *call)
{
    enum way why = WAY_CLOSED;
    struct rpc *rpc = NULL;
    enum pn_verdict verdict = PN_BRIDGE;
    if (hot_settings.enabled) {
        why = WAY_MEMORY;
        rpc = new_rpc(call);
        verdict = rpc ? look(rpc, &why) : PN_BRIDGE;
    }
    if (verdict == PN_MORE || verdict == PN_BOTH)
        call->hot = rpc;
    else if (rpc)
        rpc_free(rpc);
    if (verdict == PN_BRIDGE)
        ways_count(why);
    return verdict;
}

void rpcs_clear(void)
{
    while (free_rpcs) {
        struct rpc *rpc = free_rpcs;
        free_rpcs = rpc->next_free;
        free(rpc);
    }
}
