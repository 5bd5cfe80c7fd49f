# What a loop's thread writes down as it goes, for a watchdog that reads it without the GIL.
from cpython.object cimport PyObject
from libc.stdint cimport int64_t, uint64_t


cdef class Stamps:
    # When the turn that runs callbacks now began, in ns on the monotonic clock; 0 while the loop waits or stands still.
    cdef int64_t turn_since_ns
    # When the callback that runs now began; 0 between callbacks.
    cdef int64_t callback_since_ns
    # Turns that ran something, and callbacks of the present turn that have ended.
    cdef uint64_t turn_number, callbacks_done
    # What runs now, borrowed from the reactor, which holds it meanwhile: to be looked at with the GIL only.
    cdef PyObject *running
    # The loop's thread while it runs: `threading.get_ident()`, 0 else.
    cdef unsigned long thread_id
