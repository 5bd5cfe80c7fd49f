"""The poller: the table of watched file descriptors, straight on epoll.

An event carries the descriptor and the serial number of its registration, so that one that is stale (its descriptor
closed, perhaps opened again, earlier in the same batch) finds no source and is dropped.

Ownership: the poller owns its epoll descriptor, its table and one reference to each source in it; never the sources'
own descriptors.
"""

import os

from cpython.exc cimport PyErr_SetFromErrno
from cpython.mem cimport PyMem_Free, PyMem_Realloc
from cpython.object cimport PyObject
from cpython.ref cimport Py_INCREF, Py_XDECREF
from libc.errno cimport EEXIST, ENOENT, errno
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.string cimport memset
from posix.unistd cimport close

from penstock._core._sys.python cimport set_traverse, visitproc
from penstock._core._sys.epoll cimport (
    EPOLL_CLOEXEC,
    EPOLL_CTL_ADD,
    EPOLL_CTL_DEL,
    EPOLL_CTL_MOD,
    epoll_create1,
    epoll_ctl,
    epoll_event,
    epoll_wait,
    epoll_wait_ns,
)
from penstock._core.clock cimport now_ns
from penstock._core.handle cimport Runnable

# A forked child shares the parent's epoll set: what it took out would be gone for the parent too.
cdef int forks = 0


def _count_fork():
    global forks
    forks += 1


os.register_at_fork(after_in_child=_count_fork)


cdef class Source(Runnable):
    """Something with a file descriptor that the kernel reports on."""

    def __cinit__(self):
        self.fd = -1

    cdef int on_events(self, uint32_t events) except -1:
        raise NotImplementedError


cdef class Poller:
    """The interest table over one epoll descriptor."""

    def __cinit__(self):
        self.fd = epoll_create1(EPOLL_CLOEXEC)
        if self.fd < 0:
            PyErr_SetFromErrno(OSError)
        self.forks_seen = forks

    def __dealloc__(self):
        self.close()
        PyMem_Free(self.slots)

    cdef int add(self, Source source, uint32_t interest) except -1:
        """Registers a source, once; what stood at its descriptor before has been closed behind our back."""
        if <size_t>source.fd >= self.size:
            self.widen(source.fd)
        self.last_serial += 1
        cdef Slot *slot = &self.slots[source.fd]
        cdef PyObject *former = slot.source
        slot.serial = self.last_serial
        if self.control(EPOLL_CTL_ADD, source.fd, interest) < 0:
            if errno != EEXIST or self.control(EPOLL_CTL_MOD, source.fd, interest) < 0:
                PyErr_SetFromErrno(OSError)
        Py_INCREF(source)
        slot.source, slot.interest = <PyObject *>source, interest
        Py_XDECREF(former)
        return 0

    cdef int change(self, Source source, uint32_t interest) except -1:
        """Sets a registered source's interest; a descriptor that was closed and opened again is registered anew."""
        if self.control(EPOLL_CTL_MOD, source.fd, interest) < 0:
            if errno != ENOENT or self.control(EPOLL_CTL_ADD, source.fd, interest) < 0:
                PyErr_SetFromErrno(OSError)
        self.slots[source.fd].interest = interest
        return 0

    cdef int remove(self, Source source) except -1:
        """Takes a source out of the kernel's set and the table; its descriptor may be closed already."""
        if self.at(source.fd) is source:
            self.control(EPOLL_CTL_DEL, source.fd, 0)
            self.forget(source)
        return 0

    cdef int forget(self, Source source) except -1:
        """Takes a source out of the table; its descriptor is about to be closed, which takes it out of the kernel's."""
        if self.at(source.fd) is not source:
            return 0
        cdef PyObject *former = self.slots[source.fd].source
        self.slots[source.fd].source = NULL
        Py_XDECREF(former)
        return 0

    cdef Source at(self, int fd):
        if fd < 0 or <size_t>fd >= self.size or self.slots[fd].source is NULL:
            return None
        return <Source>self.slots[fd].source

    cdef int control(self, int operation, int fd, uint32_t interest) noexcept:
        cdef epoll_event event
        if self.is_inherited():
            return 0
        event.events = interest
        event.data.u64 = (<uint64_t>self.slots[fd].serial << 32) | <uint32_t>fd
        return epoll_ctl(self.fd, operation, fd, &event)

    cdef int poll_now(self) noexcept:
        """Asks without waiting and without giving the GIL up: the call is shorter than handing the GIL over."""
        return epoll_wait(self.fd, self.events, BATCH, 0)

    cdef int wait(self, int64_t timeout_ns, int64_t spin_ns) noexcept:
        """Blocks with the GIL released, for ever when `timeout_ns` is negative; busy-polls for `spin_ns` before."""
        cdef int count = 0
        cdef int64_t spin_end_ns
        with nogil:
            if spin_ns > 0:
                spin_end_ns = now_ns() + (min(spin_ns, timeout_ns) if timeout_ns >= 0 else spin_ns)
                while count == 0 and now_ns() < spin_end_ns:
                    count = epoll_wait(self.fd, self.events, BATCH, 0)
            if count == 0:
                count = epoll_wait_ns(self.fd, self.events, BATCH, timeout_ns)
        return count

    cdef int dispatch(self, int count) except -1:
        """Tells the sources of the last poll's events."""
        cdef uint64_t tag
        cdef size_t fd
        cdef int i
        for i in range(count):
            tag = self.events[i].data.u64
            fd = <uint32_t>tag
            if fd < self.size and self.slots[fd].source is not NULL and self.slots[fd].serial == tag >> 32:
                (<Source>self.slots[fd].source).on_events(self.events[i].events)
        return 0

    cdef bint is_inherited(self) noexcept:
        """Whether this process is a fork of the one that made the poller."""
        return self.forks_seen != forks

    cdef int reopen(self) except -1:
        """In a forked child that runs the inherited loop: an epoll set of its own, with the same interests."""
        cdef size_t fd
        close(self.fd)
        self.fd = epoll_create1(EPOLL_CLOEXEC)
        if self.fd < 0:
            PyErr_SetFromErrno(OSError)
        self.forks_seen = forks
        for fd in range(self.size):
            if self.slots[fd].source is not NULL:
                self.control(EPOLL_CTL_ADD, fd, self.slots[fd].interest)
        return 0

    cdef int close(self) except -1:
        """Gives the epoll descriptor back and lets every source go."""
        cdef PyObject *former
        cdef size_t fd
        if self.fd >= 0:
            close(self.fd)
            self.fd = -1
        for fd in range(self.size):
            former = self.slots[fd].source
            self.slots[fd].source = NULL
            Py_XDECREF(former)
        return 0

    def widen(self, int fd):
        cdef size_t size = max(2 * self.size, 64)
        while size <= <size_t>fd:
            size *= 2
        cdef Slot *wider = <Slot *>PyMem_Realloc(self.slots, size * sizeof(Slot))
        if wider is NULL:
            raise MemoryError
        memset(wider + self.size, 0, (size - self.size) * sizeof(Slot))
        self.slots, self.size = wider, size

    def sources(self):
        """Every source in the table, by file descriptor."""
        return {fd: <object>self.slots[fd].source for fd in range(self.size) if self.slots[fd].source is not NULL}


cdef int traverse(Poller self, visitproc visit, void *arg) noexcept:
    """For the garbage collector: a loop that is dropped unclosed is reachable from itself through here."""
    cdef size_t i
    for i in range(self.size):
        if self.slots[i].source is not NULL and visit(self.slots[i].source, arg):
            return 1
    return 0


set_traverse(Poller, <void *>traverse)
