from libc.stdint cimport uint32_t

from penstock._core._sys.python cimport flag
from penstock._core.datagrams.sender cimport DatagramSender
from penstock._core.datagrams.vector cimport ReceiveVector


cdef class DatagramEndpoint(DatagramSender):
    # A program may set attributes, as on asyncio's; made when the first one is.
    cdef dict __dict__
    cdef ReceiveVector vector
    # What was received and must wait: pairs of data and name; None: nothing.
    cdef object held
    # Events that are not handled yet.
    cdef uint32_t pending
    # is_unread: there was an event while nothing could be read. joins: the kernel joins datagrams.
    cdef flag is_queued, paused, is_unread, joins
    cdef size_t slot_bytes
    # The largest that the last call has received.
    cdef size_t largest_bytes

    cdef int begin(self) except -1
    cdef int handle_events(self, uint32_t events) except -1
    cdef int handling_failed(self, uint32_t events) except -1
    cdef int read_ready(self) except -1
    cdef int room(self) noexcept
    cdef int deliver_held(self) except -1
    cdef int deliver_received(self) except -1
    cdef int deliver_next(self) except -1
    cdef object name_of_next(self)
    cdef int skip_cut_off(self) except -1
    cdef int report_cut_off(self) except -1
    cdef int hold_rest(self) except -1
    cdef int deliver(self, object data, object name) except -1
    cdef int protocol_failed(self) except -1
    cdef int continue_reading(self) except -1
    cdef int set_option(self, int option, int value) except -2
