/* What Python calls to have the loop do something. */
#define PY_SSIZE_T_CLEAN
#include "orders.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "message.h"
#include "tls.h"

static PyObject *no_memory_unless(bool fine)
{
    if (!fine)
        return PyErr_NoMemory();
    Py_RETURN_NONE;
}

PyObject *order_plain(enum pn_command_kind kind)
{
    struct pn_command *command = command_new(kind, 0);
    if (command != NULL)
        bridge_submit(command);
    return no_memory_unless(command != NULL);
}

PyObject *order_read(PyObject *module, PyObject *arguments)
{
    (void)module;
    unsigned long long id, count;
    int hungry;
    if (!PyArg_ParseTuple(arguments, "KKp", &id, &count, &hungry))
        return NULL;
    struct pn_command *command = command_new(COMMAND_READ, id);
    if (command != NULL) {
        command->number = count;
        command->other_number = (uint64_t)hungry;
        bridge_submit(command);
    }
    return no_memory_unless(command != NULL);
}

PyObject *order_headers(PyObject *module, PyObject *arguments)
{
    (void)module;
    unsigned long long id;
    const char *fields;
    Py_ssize_t size;
    if (!PyArg_ParseTuple(arguments, "Ky#", &id, &fields, &size))
        return NULL;
    struct pn_command *command = command_new(COMMAND_HEADERS, id);
    bool fine = command != NULL && bytes_append(&command->one, fields, (size_t)size);
    if (fine)
        bridge_submit(command);
    else if (command != NULL)
        command_free(command);
    return no_memory_unless(fine);
}

static PyObject *send_content(enum pn_command_kind kind, PyObject *arguments)
{
    unsigned long long id, token;
    Py_buffer content;
    if (!PyArg_ParseTuple(arguments, "KKy*", &id, &token, &content))
        return NULL;
    struct pn_command *command = command_new(kind, id);
    struct pn_message *message = message_new_elsewhere((size_t)content.len);
    bool fine = command != NULL && message != NULL;
    if (fine) {
        memcpy(message->data + PN_PREFIX_BYTES, content.buf, (size_t)content.len);
        message_close(message, (size_t)content.len);
        message->token = token;
        command->message = message;
        bridge_submit(command);
    } else {
        free(message);
        if (command != NULL)
            command_free(command);
    }
    PyBuffer_Release(&content);
    return no_memory_unless(fine);
}

PyObject *order_message(PyObject *module, PyObject *arguments)
{
    (void)module;
    return send_content(COMMAND_MESSAGE, arguments);
}

PyObject *order_answer(PyObject *module, PyObject *arguments)
{
    (void)module;
    return send_content(COMMAND_ANSWER, arguments);
}

PyObject *order_status(PyObject *module, PyObject *arguments)
{
    (void)module;
    unsigned long long id;
    unsigned int status;
    const char *text, *fields;
    Py_ssize_t text_size, size;
    if (!PyArg_ParseTuple(arguments, "KIy#y#", &id, &status, &text, &text_size, &fields, &size))
        return NULL;
    struct pn_command *command = command_new(COMMAND_STATUS, id);
    bool fine = command != NULL && bytes_append(&command->one, text, (size_t)text_size) &&
                bytes_append(&command->other, fields, (size_t)size);
    if (fine) {
        command->number = status;
        bridge_submit(command);
    } else if (command != NULL) {
        command_free(command);
    }
    return no_memory_unless(fine);
}

static void wait_for(struct pn_command *command)
{
    Py_BEGIN_ALLOW_THREADS
    bridge_do(command);
    Py_END_ALLOW_THREADS
}

PyObject *order_listen(PyObject *module, PyObject *arguments)
{
    (void)module;
    int descriptor, tls;
    if (!PyArg_ParseTuple(arguments, "ip", &descriptor, &tls))
        return NULL;
    struct pn_command *command = command_new(COMMAND_LISTEN, 0);
    if (command == NULL)
        return PyErr_NoMemory();
    command->number = (uint64_t)descriptor;
    command->other_number = (uint64_t)tls;
    wait_for(command);
    int result = command->error != NULL ? ECANCELED : (int)command->result;
    command_free(command);
    if (result == 0)
        Py_RETURN_NONE;
    errno = result;
    return PyErr_SetFromErrno(PyExc_OSError);
}

PyObject *order_count(PyObject *module, PyObject *nothing)
{
    (void)module;
    (void)nothing;
    struct pn_command *command = command_new(COMMAND_COUNT, 0);
    if (command == NULL)
        return PyErr_NoMemory();
    wait_for(command);
    unsigned long long count = command->result;
    command_free(command);
    return PyLong_FromUnsignedLongLong(count);
}

PyObject *order_stop_listening(PyObject *module, PyObject *nothing)
{
    (void)module;
    (void)nothing;
    return order_plain(COMMAND_STOP_LISTENING);
}

PyObject *order_leave(PyObject *module, PyObject *nothing)
{
    (void)module;
    (void)nothing;
    return order_plain(COMMAND_LEAVE);
}

PyObject *order_cut(PyObject *module, PyObject *nothing)
{
    (void)module;
    (void)nothing;
    return order_plain(COMMAND_CUT);
}

PyObject *order_close_streams(PyObject *module, PyObject *arguments)
{
    (void)module;
    const char *text;
    Py_ssize_t size;
    if (!PyArg_ParseTuple(arguments, "y#", &text, &size))
        return NULL;
    struct pn_command *command = command_new(COMMAND_CLOSE_STREAMS, 0);
    bool fine = command != NULL && bytes_append(&command->one, text, (size_t)size);
    if (fine)
        bridge_submit(command);
    else if (command != NULL)
        command_free(command);
    return no_memory_unless(fine);
}

PyObject *order_hot(PyObject *module, PyObject *arguments)
{
    (void)module;
    const char *name, *given;
    Py_ssize_t name_size, size;
    if (!PyArg_ParseTuple(arguments, "s#y#", &name, &name_size, &given, &size))
        return NULL;
    struct pn_command *command = command_new(COMMAND_HOT, 0);
    if (command == NULL)
        return PyErr_NoMemory();
    if (!bytes_append(&command->one, name, (size_t)name_size) || !bytes_append(&command->other, given, (size_t)size)) {
        command_free(command);
        return PyErr_NoMemory();
    }
    wait_for(command);
    PyObject *result = NULL;
    if (command->error != NULL)
        PyErr_Format(PyExc_ValueError, "%s: %s", name, command->error);
    else
        result = PyBytes_FromStringAndSize((const char *)command->answer.bytes, (Py_ssize_t)command->answer.size);
    command_free(command);
    return result;
}

PyObject *order_certificate(PyObject *module, PyObject *arguments)
{
    (void)module;
    struct pn_tls_files files;
    Py_ssize_t chain_size, key_size, clients_size;
    if (!PyArg_ParseTuple(arguments, "y#y#z#", &files.chain, &chain_size, &files.key, &key_size, &files.clients,
                          &clients_size))
        return NULL;
    files.chain_size = (size_t)chain_size;
    files.key_size = (size_t)key_size;
    files.clients_size = (size_t)clients_size;
    const char *reason;
    void *context = tls_context_new(&files, &reason);
    if (context == NULL) {
        PyErr_SetString(PyExc_ValueError, reason);
        return NULL;
    }
    struct pn_command *command = command_new(COMMAND_TLS, 0);
    if (command == NULL) {
        tls_context_free(context);
        return PyErr_NoMemory();
    }
    command->pointer = context;
    wait_for(command);
    if (command->pointer != NULL)
        tls_context_free(command->pointer);
    command_free(command);
    Py_RETURN_NONE;
}
