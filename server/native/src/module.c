/* The Python module: a thin skin over bridge.h. The only file that knows Python. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "bridge.h"
#include "bounds.h"
#include "loop.h"
#include "message.h"
#include "session.h"
#include "stream.h"
#include "tls.h"

/* What the Python half has to know of this module; see predictd/native/__init__.py. */
enum { BRIDGE_VERSION = 1, TRANSPORT_VERSION = 1 };

static pthread_t thread;
static bool running;

static PyObject *no_memory_unless(bool fine)
{
    if (!fine)
        return PyErr_NoMemory();
    Py_RETURN_NONE;
}

/* Life -------------------------------------------------------------------------------------------------------------- */

static const struct {
    const char *name;
    uint64_t *value;
} limit_names[] = {
    {"message_bytes", &limits.message_bytes},
    {"metadata_bytes", &limits.metadata_bytes},
    {"unread_bytes", &limits.unread_bytes},
    {"streams", &limits.streams},
    {"connections", &limits.connections},
    {"max_age_ns", &limits.max_age_ns},
    {"max_age_grace_ns", &limits.max_age_grace_ns},
    {"max_idle_ns", &limits.max_idle_ns},
    {"handshake_timeout_ns", &limits.handshake_timeout_ns},
    {"keepalive_time_ns", &limits.keepalive_time_ns},
    {"keepalive_timeout_ns", &limits.keepalive_timeout_ns},
    {"min_ping_interval_ns", &limits.min_ping_interval_ns},
    {"max_ping_strikes", &limits.max_ping_strikes},
};

static bool read_limits(PyObject *given)
{
    for (size_t i = 0; i < sizeof limit_names / sizeof *limit_names; i++) {
        PyObject *value = PyDict_GetItemString(given, limit_names[i].name);
        if (value == NULL) {
            PyErr_Format(PyExc_ValueError, "there is no limit '%s'", limit_names[i].name);
            return false;
        }
        unsigned long long number = PyLong_AsUnsignedLongLong(value);
        if (number == (unsigned long long)-1 && PyErr_Occurred())
            return false;
        *limit_names[i].value = number;
    }
    return true;
}

static void *run(void *nothing)
{
    loop_run();
    bridge_stop();
    return nothing;
}

static PyObject *start(PyObject *module, PyObject *given)
{
    (void)module;
    if (running) {
        PyErr_SetString(PyExc_RuntimeError, "the loop runs already");
        return NULL;
    }
    if (!PyDict_Check(given)) {
        PyErr_SetString(PyExc_TypeError, "limits are a dict");
        return NULL;
    }
    if (!read_limits(given))
        return NULL;
    const char *failed = loop_open();
    if (failed != NULL) {
        PyErr_SetFromErrnoWithFilename(PyExc_OSError, failed);
        return NULL;
    }
    /* Signals are the main thread's. */
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int result = pthread_create(&thread, NULL, run, NULL);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (result != 0) {
        loop_close();
        errno = result;
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    running = true;
    return PyLong_FromLong(bridge_event_descriptor());
}

static PyObject *submit(enum pn_command_kind kind)
{
    struct pn_command *command = command_new(kind, 0);
    if (command != NULL)
        bridge_submit(command);
    return no_memory_unless(command != NULL);
}

static PyObject *stop(PyObject *module, PyObject *nothing)
{
    (void)module;
    (void)nothing;
    if (!running)
        Py_RETURN_NONE;
    if (submit(COMMAND_CUT) == NULL || submit(COMMAND_END) == NULL)
        return NULL;
    Py_BEGIN_ALLOW_THREADS
    pthread_join(thread, NULL);
    Py_END_ALLOW_THREADS
    running = false;
    loop_close();
    Py_RETURN_NONE;
}

/* Events ------------------------------------------------------------------------------------------------------------ */

static PyObject *to_bytes(const struct pn_bytes *bytes)
{
    return PyBytes_FromStringAndSize((const char *)bytes->data, (Py_ssize_t)bytes->size);
}

static PyObject *to_tuple(const struct pn_event *event)
{
    unsigned long long id = event->id, number = event->number;
    switch (event->kind) {
    case EVENT_BEGAN:
        return Py_BuildValue("iKKNNNN", event->kind, id, number, to_bytes(&event->one), to_bytes(&event->other),
                             to_bytes(&event->third), to_bytes(&event->fourth));
    case EVENT_MESSAGE:
    case EVENT_HOT:
        return Py_BuildValue("iKKN", event->kind, id, number, to_bytes(&event->one));
    default:
        return Py_BuildValue("iKK", event->kind, id, number);
    }
}

static PyObject *events(PyObject *module, PyObject *nothing)
{
    (void)module;
    (void)nothing;
    PyObject *list = PyList_New(0);
    struct pn_event *event = bridge_take_events();
    while (event != NULL) {
        struct pn_event *next = event->next;
        PyObject *tuple = list == NULL ? NULL : to_tuple(event);
        if (tuple == NULL || PyList_Append(list, tuple) != 0)
            Py_CLEAR(list);
        Py_XDECREF(tuple);
        event_free(event);
        event = next;
    }
    return list;
}

/* Commands ---------------------------------------------------------------------------------------------------------- */

static PyObject *read_message(PyObject *module, PyObject *arguments)
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

static PyObject *send_headers(PyObject *module, PyObject *arguments)
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

static PyObject *send_message(PyObject *module, PyObject *arguments)
{
    (void)module;
    return send_content(COMMAND_MESSAGE, arguments);
}

static PyObject *send_answer(PyObject *module, PyObject *arguments)
{
    (void)module;
    return send_content(COMMAND_ANSWER, arguments);
}

static PyObject *send_status(PyObject *module, PyObject *arguments)
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

static PyObject *listen_on(PyObject *module, PyObject *arguments)
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

static PyObject *connection_count(PyObject *module, PyObject *nothing)
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

static PyObject *stop_listening(PyObject *module, PyObject *nothing)
{
    (void)module;
    (void)nothing;
    return submit(COMMAND_STOP_LISTENING);
}

static PyObject *leave(PyObject *module, PyObject *nothing)
{
    (void)module;
    (void)nothing;
    return submit(COMMAND_LEAVE);
}

static PyObject *cut(PyObject *module, PyObject *nothing)
{
    (void)module;
    (void)nothing;
    return submit(COMMAND_CUT);
}

static PyObject *close_streams(PyObject *module, PyObject *arguments)
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

static PyObject *hot_command(PyObject *module, PyObject *arguments)
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

static PyObject *use_certificate(PyObject *module, PyObject *arguments)
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

/* Module ------------------------------------------------------------------------------------------------------------ */

static PyMethodDef methods[] = {
    {"start", start, METH_O, NULL},
    {"stop", stop, METH_NOARGS, NULL},
    {"events", events, METH_NOARGS, NULL},
    {"read", read_message, METH_VARARGS, NULL},
    {"send_headers", send_headers, METH_VARARGS, NULL},
    {"send_message", send_message, METH_VARARGS, NULL},
    {"send_answer", send_answer, METH_VARARGS, NULL},
    {"send_status", send_status, METH_VARARGS, NULL},
    {"listen", listen_on, METH_VARARGS, NULL},
    {"connection_count", connection_count, METH_NOARGS, NULL},
    {"stop_listening", stop_listening, METH_NOARGS, NULL},
    {"leave", leave, METH_NOARGS, NULL},
    {"cut", cut, METH_NOARGS, NULL},
    {"close_streams", close_streams, METH_VARARGS, NULL},
    {"command", hot_command, METH_VARARGS, NULL},
    {"use_certificate", use_certificate, METH_VARARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static int fill_module(PyObject *module)
{
    if (PyModule_AddIntConstant(module, "BRIDGE_VERSION", BRIDGE_VERSION) != 0 ||
        PyModule_AddIntConstant(module, "TRANSPORT_VERSION", TRANSPORT_VERSION) != 0)
        return -1;
    return 0;
}

static PyModuleDef_Slot slots[] = {
    {Py_mod_exec, (void *)fill_module},
    {0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, .m_name = "_native", .m_size = 0, .m_methods = methods, .m_slots = slots,
};

PyMODINIT_FUNC PyInit__native(void)
{
    return PyModuleDef_Init(&definition);
}
