# The offsets of the fields of asyncio's C futures and tasks that the probe reads at every step.
from cpython.object cimport PyObject, PyTypeObject
from libc.stdint cimport int32_t

cdef enum:
    PENDING = 0
    CANCELLED = 1
    FINISHED = 2


cdef struct Layout:
    # Offsets; 0 where none was found, and then attributes are asked.
    Py_ssize_t state, exception, step_task
    PyTypeObject *task_type
    PyTypeObject *step_type

cdef Layout layout

# By attributes, for what the offsets do not hold of. -1 for an exception.
cdef int asked_state(object future) except -1
cdef int asked_failed(object future) except -1


cdef extern from "Python.h":
    int PyType_IsSubtype(PyTypeObject *type_, PyTypeObject *base) noexcept
    PyTypeObject *Py_TYPE(PyObject *object) noexcept


cdef inline bint is_c_task(PyObject *task) noexcept:
    return Py_TYPE(task) is layout.task_type or PyType_IsSubtype(Py_TYPE(task), layout.task_type)


cdef inline int state_of(PyObject *task) except -1:
    """PENDING, CANCELLED or FINISHED."""
    if layout.state and is_c_task(task):
        return (<int32_t *>(<char *>task + layout.state))[0]
    return asked_state(<object>task)


cdef inline int has_failed(PyObject *task) except -1:
    """Return whether a FINISHED task ended by an exception. Does not count as retrieving it."""
    if layout.exception and is_c_task(task):
        return (<PyObject **>(<char *>task + layout.exception))[0] is not NULL
    return asked_failed(<object>task)
