from libc.stdint cimport int64_t, uint64_t

from penstock._core._sys.python cimport flag
from penstock._core.net.buffers cimport WriteQueue
from penstock._core.limits.peer_timeouts cimport PeerTimeouts
from penstock._core.net.transport cimport Transport


cdef class LimitedTransport(Transport):
    # One of no chunk that all share, until something is queued or counted.
    cdef WriteQueue queue
    cdef Py_ssize_t high_bytes, low_bytes
    # None: its peer may take any time.
    cdef PeerTimeouts timeouts
    # Whether the budget's pause is in effect here; whether a layer above, such as TLS, reports its buffered bytes.
    cdef flag budget_pauses, has_layer
    cdef size_t layer_bytes

    cdef WriteQueue own_queue(self)
    cdef int bind(self) except -1
    cdef int unbind(self) except -1
    cdef int account_bytes(self, bint may_pause) except -1
    cdef int apply_budget(self) except -1
    cdef int on_budget_pause(self) except -1
    cdef object protocol_context(self)
    cdef bint can_read(self) noexcept
    cdef bint is_lent(self) noexcept
    cdef int note_answer(self) except -1
    cdef int note_growth(self) except -1
    cdef int check_timeouts(self) except -1
    cdef int find_timeout(self) except -1
    cdef int disconnect(self, int reason) except -1
    cdef int expect(self, int expects, int64_t within_ns) except -1
    cdef int64_t stamp_ns(self) noexcept
