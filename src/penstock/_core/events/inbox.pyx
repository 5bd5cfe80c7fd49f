"""The inbox: a queue of entries that other threads post to the loop. A post or a drain is one atomic exchange.

A stack linked through the entries themselves, turned round when it is drained, so no thread ever waits for another
and nothing is allocated. The order of the posts is kept.

Ownership: the inbox owns one reference to each posted entry, handed to the ready queue when drained.
"""

from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF, Py_INCREF

from penstock._core._sys.python cimport set_traverse, visitproc
from penstock._core.events.handle cimport Runnable
from penstock._core.events.ready cimport Ready, push

cdef extern from *:
    """
    #define penstock_load(place) __atomic_load_n(place, __ATOMIC_ACQUIRE)
    #define penstock_exchange(place, value) __atomic_exchange_n(place, value, __ATOMIC_SEQ_CST)
    #define penstock_replace(place, expected, value) \
        __atomic_compare_exchange_n(place, expected, value, 0, __ATOMIC_SEQ_CST, __ATOMIC_ACQUIRE)
    """
    PyObject *load "penstock_load"(PyObject **place) noexcept nogil
    PyObject *exchange "penstock_exchange"(PyObject **place, PyObject *value) noexcept nogil
    bint replace "penstock_replace"(PyObject **place, PyObject **expected, PyObject *value) noexcept nogil


cdef class Inbox:
    """A queue that any thread may post to and one thread drains."""

    def __dealloc__(self):
        self.drain(Ready())

    cdef int post(self, Runnable entry) except -1:
        Py_INCREF(entry)
        entry.inbox_next = load(&self.newest)
        while not replace(&self.newest, &entry.inbox_next, <PyObject *>entry):
            pass
        return 0

    cdef int drain(self, Ready ready) except -1:
        cdef PyObject *entry = exchange(&self.newest, NULL)
        cdef PyObject *oldest = NULL
        cdef PyObject *following
        while entry is not NULL:
            following = (<Runnable>entry).inbox_next
            (<Runnable>entry).inbox_next = oldest
            oldest, entry = entry, following
        try:
            while oldest is not NULL:
                push(ready, <Runnable>oldest)
                following = (<Runnable>oldest).inbox_next
                (<Runnable>oldest).inbox_next = NULL
                Py_DECREF(<object>oldest)
                oldest = following
        finally:
            # Without the memory for them: they are posted again.
            while oldest is not NULL:
                following = (<Runnable>oldest).inbox_next
                self.post(<Runnable>oldest)
                Py_DECREF(<object>oldest)
                oldest = following
        return 0


cdef int traverse(Inbox self, visitproc visit, void *arg) noexcept:
    """For the garbage collector: a loop that is dropped unclosed is reachable from itself through here."""
    cdef PyObject *entry = load(&self.newest)
    while entry is not NULL:
        if visit(entry, arg):
            return 1
        entry = (<Runnable>entry).inbox_next
    return 0


set_traverse(Inbox, <void *>traverse)
