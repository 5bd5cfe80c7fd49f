cimport cython

cdef extern from *:
    """
    #include <frameobject.h>
    /* Cython adds a frame to the traceback of whatever passes its functions, and makes a code object for it where it
       has none. A refusal or a cancellation is no bug of what it passes: where inside the gate that was helps nobody,
       and at ten times the load, when there are thousands a second, those frames would cost more than all the rest of
       a refusal. So those two have none of ours; the frames of the program, before and behind, are CPython's and all
       there. Any other exception has the gate's frames too, as it may be a bug of the gate. This holds in each module
       that cimports this file. The type is told by its name: the core does not know penstock's exceptions. */
    static int penstock_is_no_bug(void) {
        PyObject *type = PyErr_Occurred();
        const char *name = type ? ((PyTypeObject *)type)->tp_name : "";
        return strcmp(name, "Overloaded") == 0 || strcmp(name, "CancelledError") == 0;
    }
    #define PyFrame_New(...) (penstock_is_no_bug() ? NULL : (PyFrame_New)(__VA_ARGS__))
    """


cdef int WAITING, GRANTED, SHED, GONE, INSIDE, OVER


@cython.final
cdef class Done:
    pass


cdef class Waiting:
    cdef public object owner, loop, key
    cdef object callback, context, message, blocking
    cdef public int state, reason
    cdef public bint is_fresh

    cdef bint begins(self) except -1
    cdef void resumed(self) except *
    cdef void gave_up(self) except *
    cdef void passed_on(self) except *
    cdef void ended(self) except *
    cpdef void grant(self) except *
    cdef void shed(self, int reason) except *
    cdef void wake(self) except *
    cdef object cancellation(self)
    @cython.locals(state=int)
    cdef void give_up(self) except *
    cpdef bint cancelled(self) noexcept
    cpdef bint done(self) noexcept
