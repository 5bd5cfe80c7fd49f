cimport cython

cdef extern from *:
    """
    #include <frameobject.h>
    /* Cython adds a frame to the traceback of whatever passes its functions. A refusal or a cancellation is no bug:
       where inside the gate it passed helps nobody, and those frames would cost more than all the rest. Other
       exceptions have them. This holds here and in the gate, which cimports this file. */
    static int penstock_is_no_bug(void) {
        PyObject *type = PyErr_Occurred();
        const char *name = type ? ((PyTypeObject *)type)->tp_name : "";
        return strcmp(name, "Overloaded") == 0 || strcmp(name, "CancelledError") == 0;
    }
    #define PyFrame_New(...) (penstock_is_no_bug() ? NULL : (PyFrame_New)(__VA_ARGS__))
    """


cdef int CLASSES, WAITING, GRANTED, REFUSED, GONE, INSIDE


@cython.final
cdef class Waiter:
    cdef public object gate, loop, key, entry
    cdef object callback, context, message
    cdef public object timer
    cdef public int priority, state, reason
    cdef bint blocking
    cdef public double queued_s, arrived_s, deadline_s
    cdef Waiter older, newer, before, after
    cdef Line line

    cdef void grant(self) except *
    cdef void refuse(self, int reason) except *
    cdef void wake(self) except *
    cdef void stop_timer(self) except *
    cdef object cancellation(self)
    cdef void give_up(self) except *


@cython.final
cdef class Line:
    cdef object key
    cdef Py_ssize_t count
    cdef Waiter first, last
    cdef Line behind, ahead


@cython.final
cdef class Rank:
    cdef Py_ssize_t count, line_count
    cdef Waiter oldest, newest
    cdef Line turn, end, heaviest
    cdef dict lines

    @cython.locals(line=Line)
    cdef void add(self, Waiter waiter) except *
    @cython.locals(line=Line, older=Waiter, newer=Waiter, before=Waiter, after=Waiter)
    cdef void drop(self, Waiter waiter) except *
    cdef void join(self, Line line) except *
    @cython.locals(ahead=Line, behind=Line)
    cdef void part(self, Line line) except *
    @cython.locals(line=Line, waiter=Waiter)
    cdef Waiter take(self, bint newest_first)
    @cython.locals(lines=Py_ssize_t)
    cdef Py_ssize_t share(self, object key) except -1
    @cython.locals(line=Line)
    cdef Py_ssize_t held(self, object key) except -1
    @cython.locals(held=Py_ssize_t, others=Py_ssize_t)
    cdef Py_ssize_t before_next(self, object key) except -1


@cython.final
cdef class WaitQueue:
    cdef readonly Py_ssize_t count
    cdef list ranks

    @cython.locals(rank=Rank)
    cdef void push(self, Waiter waiter) except *
    @cython.locals(rank=Rank)
    cdef void remove(self, Waiter waiter) except *
    @cython.locals(rank=Rank)
    cdef Waiter take(self, bint newest_first)
    @cython.locals(rank=Rank)
    cdef Py_ssize_t critical_count(self) except -1
    @cython.locals(rank=Rank, found=Waiter, waiter=Waiter)
    cdef Waiter oldest(self)
    @cython.locals(rank=Rank, count=Py_ssize_t, at=int)
    cdef Py_ssize_t before_next(self, int priority, object key) except -1
    @cython.locals(rank=Rank, held=Py_ssize_t)
    cdef bint is_over_share(self, int priority, object key) except -1
    @cython.locals(rank=Rank, at=int)
    cdef Waiter lowest_newest(self, int priority)
    @cython.locals(rank=Rank, line=Line)
    cdef Waiter heaviest_newest(self, int priority, object key)
