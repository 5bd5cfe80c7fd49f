cimport cython

from penstock._core.workers.frames cimport FrameReader
from penstock._core.workers.pickled cimport Pickled
from penstock._core.workers.tally cimport Tally

cdef int RESULT_STATUS, INTERRUPTED_STATUS
cdef Py_ssize_t RECEIVE_BYTES, LARGE_READ_BYTES


cdef class JobPipe:
    cdef readonly Tally counters
    cdef readonly dict jobs, _blocks, _kept
    cdef public Py_ssize_t jobs_done
    cdef public bint is_ready
    cdef public object retiring
    cdef public unsigned long long interrupted
    cdef readonly object _loop
    cdef object _socket, _receive, _offer, _revoke, _unsent
    cdef FrameReader _frames
    cdef Py_ssize_t _most_jobs, _most_ahead
    cdef unsigned long long _last_number
    cdef list _outgoing
    cdef bint _wants_flush

    @cython.locals(number=object, pickled=Pickled, is_first=bint, size=Py_ssize_t, flags=int)
    cpdef void send(self, object job) except *
    @cython.locals(flags=int)
    cdef void _append(self, bytes function, object number, Py_ssize_t size, object buffer_count, int flags) except *
    cdef void _flush(self) except *
    @cython.locals(sent=Py_ssize_t)
    cdef void _write(self, object data) except *
    cpdef bint take_back(self, object job) except -1
    @cython.locals(count=Py_ssize_t)
    cpdef bint has_room(self, Py_ssize_t depth) except -1
    @cython.locals(size=Py_ssize_t)
    cpdef bint read(self, object on_reply) except -1
    @cython.locals(status=int, buffer_count=int)
    cdef void _take_frame(self, tuple head, bytes body, Py_ssize_t start, Py_ssize_t end, object on_reply) except *
