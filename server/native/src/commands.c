#include "commands.h"

#include <string.h>

#include "answer.h"
#include "bridge.h"
#include "call.h"
#include "connection.h"
#include "ending.h"
#include "ids.h"
#include "listener.h"
#include "loop.h"
#include "message.h"
#include "stream.h"
#include "tls.h"

static void run_hot(struct pn_command *command)
{
    for (const struct hot_command *known = hot_commands; known->name != NULL; known++) {
        if (command->one.size == strlen(known->name) && memcmp(command->one.data, known->name, command->one.size) == 0) {
            command->error = known->run(command->other.data, command->other.size, &command->answer);
            return;
        }
    }
    command->error = "there is no such command";
}

static void answer_of_python(struct pn_stream *stream, struct pn_command *command)
{
    struct pn_message *message = command->message;
    command->message = NULL;
    if (stream->hot && !stream->over &&
        hot_bridged_answer(&stream->call, message->data + PN_PREFIX_BYTES, message->length - PN_PREFIX_BYTES))
        return;
    answer_message(stream, message);
}

static void run_of_call(struct pn_stream *stream, struct pn_command *command)
{
    switch (command->kind) {
    case COMMAND_READ:
        stream_read(stream, command->number, command->other_number != 0);
        break;
    case COMMAND_HEADERS:
        answer_headers(stream, command->one.data, command->one.size);
        break;
    case COMMAND_MESSAGE:
        answer_of_python(stream, command);
        break;
    case COMMAND_ANSWER:
        answer_of_python(stream, command);
        ending_python_done(stream, 0, "", 0, NULL, 0);
        break;
    default:
        ending_python_done(stream, (int)command->number, (const char *)command->one.data, command->one.size,
                           command->other.data, command->other.size);
    }
}

void command_run(struct pn_command *command)
{
    struct pn_stream *stream;
    switch (command->kind) {
    case COMMAND_READ:
    case COMMAND_HEADERS:
    case COMMAND_MESSAGE:
    case COMMAND_ANSWER:
    case COMMAND_STATUS:
        stream = id_find(command->id);
        if (stream != NULL)
            run_of_call(stream, command);
        break;
    case COMMAND_LISTEN:
        command->result = (uint64_t)listener_add((int)command->number, command->other_number != 0);
        break;
    case COMMAND_STOP_LISTENING:
        listeners_close();
        break;
    case COMMAND_LEAVE:
        connections_leave();
        break;
    case COMMAND_CLOSE_STREAMS:
        streams_close((const char *)command->one.data, command->one.size);
        break;
    case COMMAND_CUT:
        connections_cut();
        break;
    case COMMAND_END:
        loop_end();
        break;
    case COMMAND_HOT:
        run_hot(command);
        break;
    case COMMAND_TLS:
        tls_use(command->pointer);
        command->pointer = NULL;
        break;
    case COMMAND_COUNT:
        command->result = connections_count();
        break;
    }
}
