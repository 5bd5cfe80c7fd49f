from cpython.object cimport PyObject
from libc.stdint cimport int64_t

from penstock._core._sys.python cimport flag


cdef class Runnable:
    """An entry of the ready queue: a handle, a transport with events, a listener."""
    # Link of the inbox; borrowed while not in it.
    cdef PyObject *inbox_next
    # When it came into the ready queue, to the last time the clock was read; 0: not known.
    cdef int64_t ready_ns
    # Runs once. Fails only with exceptions that must leave the loop (SystemExit, KeyboardInterrupt).
    cdef int run(self) except -1


cdef class Handle(Runnable):
    cdef object callback
    cdef object arg0, arg1, arg2
    cdef object context
    cdef object loop
    cdef object debug_info
    cdef object __weakref__
    # One byte each: a loop may have a million of them.
    cdef flag is_cancelled
    # A watch has queued it, and it has not run since.
    cdef flag is_queued
    # Positional arguments held in arg0..arg2; MANY: all of them in the tuple arg0.
    cdef unsigned char arg_count
    # The number of calls in progress: a callback may cancel its own handle, and the arguments must outlive the call.
    cdef int running_count

    cdef int failed(self) except -1
    cdef int drop(self) except -1
    cdef tuple arguments(self)


cdef class ThreadSafeHandle(Handle):
    # Locked while the callback runs that a thread waits for; made by the first that does.
    cdef object finished
    cdef int wait_for_run(self) except -1


cdef class TimerQueue:
    """The queue of a timer handle, which hears of its cancellation: so cancelling is O(1)."""
    cdef int cancelled_one(self, TimerHandle handle) except -1


cdef class TimerHandle(Handle):
    cdef double when_s
    # The time as it was given, for `when()`; None for a float.
    cdef object given
    # Its slot in the timer wheel and its place there; -1: it is not in the wheel.
    cdef int slot
    cdef unsigned int place
    # The queue it waits in; None before, after, and once cancelled and forgotten.
    cdef TimerQueue queue


cdef enum:
    MANY = 4

# `args` are borrowed, as in a vectorcall; `context` None: a copy of the current one.
cdef Handle new_handle(object loop, object callback, PyObject *const *args, Py_ssize_t arg_count, object context)
cdef Handle new_posted_handle(object loop, object callback, PyObject *const *args, Py_ssize_t arg_count, object context)
cdef TimerHandle new_timer(
    double when_s, object loop, object callback, PyObject *const *args, Py_ssize_t arg_count, object context
)
# Releases a queue's reference: a handle without other references is emptied and kept for the next `new_handle`.
cdef int let_go(PyObject *entry) except -1
# Before the loop waits: a part of the memory of a burst is given back.
cdef int relax_pools() noexcept
