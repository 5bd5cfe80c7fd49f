cimport cython

cdef extern from *:
    """
    #include <frameobject.h>
    /* Cython adds a frame to the traceback of each exception that passes its functions, and makes a code object for it
       if there is none. A refusal or a cancellation is no bug of the code it passes: the place inside the gate is of no
       use, and at ten times the load, with thousands a second, those frames would cost more than all the rest of a
       refusal. So those two have no frames of the gate; the program's frames before and behind are CPython's and
       complete. Any other exception has the gate's frames too, as it may be a bug of the gate. This holds in each
       module that cimports this file. The type is compared by name: the core does not know penstock's exceptions. */
    static int penstock_is_no_bug(void) {
        PyObject *type = PyErr_Occurred();
        const char *name = type ? ((PyTypeObject *)type)->tp_name : "";
        return strcmp(name, "Overloaded") == 0 || strcmp(name, "CancelledError") == 0;
    }
    #define PyFrame_New(...) (penstock_is_no_bug() ? NULL : (PyFrame_New)(__VA_ARGS__))
    """


cdef int WAITING, GRANTED, SHED, CANCELLED, ADMITTED, FINISHED


@cython.final
cdef class Done:
    pass


cdef class Waiter:
    cdef public object owner, loop, key
    cdef object callback, context, message, blocking
    cdef public int state, reason
    cdef public bint is_unstarted

    cdef bint start(self) except -1
    cdef void admitted(self) except *
    cdef void abandoned(self) except *
    cdef void forfeited(self) except *
    cdef void finished(self) except *
    cpdef void grant(self) except *
    cdef void shed(self, int reason) except *
    cdef void wake(self) except *
    cdef object cancellation(self)
    @cython.locals(state=int)
    cdef void abandon(self) except *
    cpdef bint cancelled(self) noexcept
    cpdef bint done(self) noexcept
