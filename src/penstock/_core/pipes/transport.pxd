from libc.stdint cimport uint32_t

from penstock._core._sys.python cimport flag
from penstock._core.events.poller cimport Source
from penstock._core.net.io_context cimport IOContext


cdef class PipeTransport(Source):
    # A program may set attributes, as on asyncio's; made when the first one is.
    cdef dict __dict__
    cdef object __weakref__
    cdef IOContext io
    cdef object loop, protocol
    # The program's file object, which owns the descriptor; None: closed.
    cdef object pipe
    cdef dict extra
    # The context to call the protocol in; None: not registered yet.
    cdef object context
    # FIFO or STREAM_SOCKET.
    cdef int kind
    # Events that are not handled yet.
    cdef uint32_t pending
    # is_ending: connection_lost is scheduled or has been called.
    cdef flag closing, is_ending, is_queued

    cdef int open(self, object loop, IOContext io, object pipe, object protocol, object extra) except -1
    cdef int connect_protocol(self, object waiter) except -1
    cdef uint32_t interest(self) noexcept
    cdef int enqueue(self, uint32_t events) except -1
    cdef int handle_events(self, uint32_t events) except -1
    cdef int failed(self, uint32_t events) except -1
    cdef int fatal_error(self, object exc, str message, bint is_expected) except -1
    cdef int stop_io(self) except -1
    cdef int end(self, object exc) except -1
    cdef int lost(self, object exc) except -1
    cdef int release(self) except -1
    cdef list describe(self)
