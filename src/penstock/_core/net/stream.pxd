from libc.stdint cimport int64_t, uint32_t

from penstock._core._sys.python cimport flag
from penstock._core.events.handle cimport Runnable
from penstock._core.net.clients cimport Clients
from penstock._core.net.io_context cimport IOContext
from penstock._core.net.layer cimport Layer
from penstock._core.net.writer cimport WriterTransport
from penstock._core.overload.deferred_reads cimport DeferredRead


cdef class Stream(WriterTransport):
    # A program may set attributes, as on asyncio's; made when the first one is.
    cdef dict __dict__
    cdef object context
    # Events that are not handled yet; events that came while reading was paused or deferred.
    cdef uint32_t pending, unread
    cdef flag is_queued, is_registered, paused, eof_read, buffered
    # Whether the protocol may be asyncio's StreamReaderProtocol, whose reader can be fed.
    cdef flag feeds
    # The protocol if it is a native layer, otherwise None.
    cdef Layer layer
    # Whether a short read may leave more behind: then only EAGAIN ends a round.
    cdef flag thorough
    cdef Py_ssize_t last_read_bytes
    # Where it waits to be read; NULL: it does not.
    cdef DeferredRead *deferred_read
    # The time of its accept if that was deferred and its data has not been read yet; otherwise 0.
    cdef int64_t deferred_since_ns

    cdef int accept(self, object loop, IOContext io, int fd, object protocol, object extra, object server, Clients clients, object context) except -1
    cdef int take_protocol(self, object protocol) except -1
    cdef int connect_protocol(self) except -1
    cdef int begin(self) except -1
    cdef object enter_copy(self)
    cdef int wanted_events(self, uint32_t events) except -1
    cdef int defer(self, uint32_t events) except -1
    cdef bint is_abandoned(self, uint32_t events) noexcept
    cdef bint is_empty(self) noexcept
    cdef bint is_urgent(self) noexcept
    cdef int read_urgent(self, uint32_t wanted) except -1
    cdef int close_unread(self) except -1
    cdef bint shed(self) except -1
    cdef object overload_reply(self)
    cdef int read_deferred(self) except -1
    cdef int read_deferred_accept(self, uint32_t events) except -1
    cdef int enqueue_deferred(self, uint32_t events, int64_t arrived_ns) except -1
    cdef int enqueue(self, uint32_t events) except -1
    cdef int handle_events(self, uint32_t events) except -1
    cdef int handling_failed(self, uint32_t events) except -1
    cdef int read_ready(self, uint32_t events) except -1
    cdef Py_ssize_t read_once(self, Py_ssize_t *asked) except -1
    cdef Py_ssize_t read_layered(self, Py_ssize_t *asked) except -1
    cdef Py_ssize_t read_copied(self, Py_ssize_t *asked) except -1
    cdef Py_ssize_t read_direct(self, Py_ssize_t *asked) except -1
    cdef Py_ssize_t read_fed(self, object reader, Py_ssize_t *asked) except -1
    cdef Py_ssize_t read_into(self, Py_ssize_t *asked) except -1
    cdef int deliver(self, object data) except -1
    cdef int protocol_failed(self, str message) except -1
    cdef Py_ssize_t account_read(self, Py_ssize_t got) except -1
    cdef int read_eof(self) except -1
    cdef int continue_reading(self) except -1


cdef int expire(IOContext io, int64_t turn_ns) except -1


cdef class DeferredReadHandle(Runnable):
    cdef Stream stream
    cdef int64_t arrived_ns
