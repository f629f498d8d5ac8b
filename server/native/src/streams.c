/* Which answer goes out when: at once for an RPC of one request and in streams of predictd.v1, in the order of the
 * requests in streams of the Open Inference Protocol, whoever answers them. */
#include <stdlib.h>

#include "hot.h"

void rpc_detach(struct request *request)
{
    struct rpc *rpc = request->rpc;
    if (!rpc)
        return;
    if (request->previous)
        request->previous->next = request->next;
    else
        rpc->requests = request->next;
    if (request->next)
        request->next->previous = request->previous;
    if (rpc->reading == request)
        rpc->reading = NULL;
    request->rpc = NULL;
    request->next = request->previous = NULL;
}

struct turn *rpc_new_turn(struct rpc *rpc, bool bridged)
{
    struct turn *turn = calloc(1, sizeof *turn);
    /* Without it the answers of the stream would lose their order; a front end that has no 40 bytes is at its end. */
    if (!turn)
        abort();
    turn->bridged = bridged;
    if (rpc->last_turn)
        rpc->last_turn->next = turn;
    else
        rpc->first_turn = turn;
    rpc->last_turn = turn;
    return turn;
}

void rpc_end_turns(struct rpc *rpc)
{
    while (rpc->first_turn) {
        struct turn *turn = rpc->first_turn;
        rpc->first_turn = turn->next;
        if (turn->message)
            call_buffer_free(turn->message);
        free(turn);
    }
    rpc->last_turn = NULL;
}

static void send_ready_turns(struct rpc *rpc)
{
    while (rpc->first_turn && rpc->first_turn->ready) {
        struct turn *turn = rpc->first_turn;
        rpc->first_turn = turn->next;
        if (!rpc->first_turn)
            rpc->last_turn = NULL;
        rpc->in_flight--;
        if (turn->message)
            call_answer(rpc->call, turn->message, turn->length);
        free(turn);
    }
}

static bool owes(const struct rpc *rpc)
{
    const struct turn *turn = rpc->first_turn;
    while (turn && turn->bridged)
        turn = turn->next;
    return rpc->requests || turn;
}

/* Something was answered: more may be read, or nothing is owed any more. */
void rpc_progress(struct rpc *rpc)
{
    if (rpc->waiting && rpc->in_flight < STREAM_IN_FLIGHT_MAX) {
        rpc->waiting = false;
        call_resume(rpc->call);
    }
    if (rpc->stream && rpc->half_closed && !rpc->done && !owes(rpc)) {
        rpc->done = true;
        call_done(rpc->call);
    }
}

void rpc_answer(struct request *request, uint8_t *message, size_t length)
{
    struct rpc *rpc = request->rpc;
    struct turn *turn = request->turn;
    if (!rpc) {
        if (message)
            call_buffer_free(message);
        return;
    }
    rpc_detach(request);
    request->turn = NULL;
    if (turn) {
        turn->ready = true;
        turn->message = message;
        turn->length = length;
        send_ready_turns(rpc);
    } else {
        rpc->in_flight--;
        if (message)
            call_answer(rpc->call, message, length);
    }
    rpc_progress(rpc);
}

bool hot_bridged_answer(struct pn_call *call, uint8_t *message, size_t length)
{
    struct rpc *rpc = call->hot;
    if (!rpc)
        return false;
    struct turn *turn = rpc->first_turn;
    while (turn && (!turn->bridged || turn->ready))
        turn = turn->next;
    if (!turn) {
        if (!rpc->oip && rpc->in_flight)
            rpc->in_flight--;
        rpc_progress(rpc);
        return false;
    }
    turn->ready = true;
    turn->message = message;
    turn->length = length;
    send_ready_turns(rpc);
    rpc_progress(rpc);
    return true;
}

void hot_half_closed(struct pn_call *call)
{
    struct rpc *rpc = call->hot;
    if (!rpc)
        return;
    rpc->half_closed = true;
    rpc_progress(rpc);
}
