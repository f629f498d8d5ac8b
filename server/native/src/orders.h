/* Functions of the module that give the loop commands. With bridge.h, all that they do is to read their arguments. */
#ifndef PN_ORDERS_H
#define PN_ORDERS_H

#include <Python.h>

#include "bridge.h"

/* A command without anything beside it. */
PyObject *order_plain(enum pn_command_kind kind);

PyObject *order_read(PyObject *module, PyObject *arguments);
PyObject *order_headers(PyObject *module, PyObject *arguments);
PyObject *order_message(PyObject *module, PyObject *arguments);
PyObject *order_answer(PyObject *module, PyObject *arguments);
PyObject *order_status(PyObject *module, PyObject *arguments);
PyObject *order_listen(PyObject *module, PyObject *arguments);
PyObject *order_count(PyObject *module, PyObject *arguments);
PyObject *order_stop_listening(PyObject *module, PyObject *arguments);
PyObject *order_leave(PyObject *module, PyObject *arguments);
PyObject *order_cut(PyObject *module, PyObject *arguments);
PyObject *order_close_streams(PyObject *module, PyObject *arguments);
PyObject *order_hot(PyObject *module, PyObject *arguments);
PyObject *order_certificate(PyObject *module, PyObject *arguments);

#endif
