"""The waker: an eventfd that interrupts a blocked poll.

It is watched edge-triggered and never read: every write is an edge of its own, and the counter takes 2**64 of them.

Ownership: the waker owns its file descriptor until `close`.
"""

from cpython.exc cimport PyErr_SetFromErrno
from posix.unistd cimport close

from penstock._core._sys.epoll cimport EFD_CLOEXEC, EFD_NONBLOCK, eventfd, eventfd_write

cdef extern from *:
    """
    #define penstock_take(flag) __atomic_exchange_n(flag, 0, __ATOMIC_SEQ_CST)
    """
    bint take "penstock_take"(bint *flag) noexcept nogil


cdef class Waker:
    """Interrupts the loop's thread when it is blocked in a poll."""

    def __cinit__(self):
        self.fd = -1

    def __init__(self):
        self.fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)
        if self.fd < 0:
            PyErr_SetFromErrno(OSError)

    def __dealloc__(self):
        self.close()

    cdef void interrupt(self) noexcept:
        if take(&self.is_asleep) and self.fd >= 0:
            eventfd_write(self.fd, 1)

    def close(self):
        """Give the file descriptor back; a second call does nothing."""
        if self.fd >= 0:
            close(self.fd)
            self.fd = -1
