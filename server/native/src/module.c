/* The Python module: a thin skin over bridge.h. Nothing but this and orders.c knows Python. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>

#include "bounds.h"
#include "loop.h"
#include "orders.h"
#include "records.h"

/* What the Python half has to know of this module; see predictd/native/__init__.py. */
enum { BRIDGE_VERSION = 2, TRANSPORT_VERSION = ABI_VERSION };

static pthread_t thread;
static bool running;

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

static PyObject *stop(PyObject *module, PyObject *nothing)
{
    (void)module;
    (void)nothing;
    if (!running)
        Py_RETURN_NONE;
    if (order_plain(COMMAND_CUT) == NULL || order_plain(COMMAND_END) == NULL)
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

/* Module ------------------------------------------------------------------------------------------------------------ */

static PyMethodDef methods[] = {
    {"start", start, METH_O, NULL},
    {"stop", stop, METH_NOARGS, NULL},
    {"events", events, METH_NOARGS, NULL},
    {"read", order_read, METH_VARARGS, NULL},
    {"send_headers", order_headers, METH_VARARGS, NULL},
    {"send_message", order_message, METH_VARARGS, NULL},
    {"send_answer", order_answer, METH_VARARGS, NULL},
    {"send_status", order_status, METH_VARARGS, NULL},
    {"listen", order_listen, METH_VARARGS, NULL},
    {"connection_count", order_count, METH_NOARGS, NULL},
    {"stop_listening", order_stop_listening, METH_NOARGS, NULL},
    {"leave", order_leave, METH_NOARGS, NULL},
    {"cut", order_cut, METH_NOARGS, NULL},
    {"close_streams", order_close_streams, METH_VARARGS, NULL},
    {"command", order_hot, METH_VARARGS, NULL},
    {"use_certificate", order_certificate, METH_VARARGS, NULL},
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
