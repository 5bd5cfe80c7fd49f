from libc.stdint cimport uint64_t

from penstock._core.bounded cimport Bounded


cdef class Outlet(Bounded):
    # blocked: the kernel takes no more until it reports EPOLLOUT.
    cdef bint blocked, protocol_paused, eof_written
    # Whether writes wait for the end of the turn, and whether this turn's already do.
    cdef bint gathers, is_gathered
    cdef int gathered_count
    cdef uint64_t last_write_turn
    cdef object empty_waiter

    cdef int check_writable(self, str verb) except -1
    cdef int write_bytes(self, object data, const char *start, Py_ssize_t size_bytes) except -1
    cdef int enqueue(self, bytes chunk, Py_ssize_t sent_bytes) except -1
    cdef int gather(self) except -1
    cdef Py_ssize_t send_now(self, const char *start, Py_ssize_t size_bytes) except -2
    cdef int flush(self) except -1
    cdef int flush_gathered(self) except -1
    cdef int drained(self) except -1
    cdef int write_failed(self) except -1
    cdef int shut_down(self) except -1
    cdef int maybe_pause(self) except -1
    cdef int maybe_resume(self) except -1
    cdef int call_protocol(self, str method) except -1
    cdef int pause(self) except -1
    cdef int resume(self) except -1
