from cpython.object cimport PyObject
from libc.stdint cimport uint32_t

from penstock._core._sys.python cimport flag
from penstock._core.datagrams.names cimport NameCache
from penstock._core.datagrams.queue cimport DatagramQueue
from penstock._core.net.flow_control cimport FlowControlledTransport


cdef class DatagramSender(FlowControlledTransport):
    cdef DatagramQueue waiting
    cdef NameCache names
    # The only receiver, as the program gave it; None: each datagram names its own.
    cdef object address
    # The context to call the protocol in; None until there is one.
    cdef object context
    cdef int family
    # Since the last datagram that a full receiver took.
    cdef double retry_s
    # The thread that last ran the loop here.
    cdef unsigned long thread_id
    # is_connected: the kernel knows the receiver. blocked: it takes no more until it reports EPOLLOUT.
    cdef flag is_connected, has_address, blocked, is_registered
    # is_gathered: one was sent in this callback, and it is flushed when that ends. gathers_all: the first waits, too.
    cdef flag is_gathered, gathers_all

    cdef int prepare(self, object address) except -1
    cdef int send_to(self, object data, object name) except -1
    cdef object packed_name(self, object name)
    cdef int send_plain(self, object data, const char *start, Py_ssize_t size_bytes, object packed, object name) except -1
    cdef int send_now(self, object data, const char *start, Py_ssize_t size_bytes, object packed, object name) except -1
    cdef int send_by_socket(self, object data, object name) except -1
    cdef object attempt_by_socket(self, object data, object name)
    cdef bint can_gather(self, Py_ssize_t size_bytes) noexcept
    cdef int note_callback(self) except -1
    cdef int queue_up(self, object data, const char *start, Py_ssize_t size_bytes, object packed, object name) except -1
    cdef int wait_for_room(self, bytes data, object name) except -1
    cdef int charge_from(self, size_t before_bytes) except -1
    cdef int drop(self, size_t count) except -1
    cdef int block(self) except -1
    cdef int unblock(self) except -1
    cdef int sent_after_loss(self) except -1
    cdef int flush(self) except -1
    cdef int flush_later(self) except -1
    cdef int flush_some(self) except -1
    cdef int flush_first(self) except -1
    cdef int put_back(self, object data, object name) except -1
    cdef int first_failed(self, int number) except -1
    cdef int flush_gathered(self) except -1
    cdef int end_callback(self) except -1
    cdef int drained(self) except -1
    cdef int send_failed(self, object exc) except -1
    cdef int report_error(self, object exc) except -1
    cdef int descriptor(self) except -2
    cdef bint is_watched(self) except -1
    cdef uint32_t interest(self) noexcept
    cdef int enqueue(self, uint32_t events) except -1


cdef object enter(object context)
