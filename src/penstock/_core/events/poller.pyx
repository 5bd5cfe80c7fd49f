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
from libc.errno cimport EEXIST, EINTR, ENOENT, errno
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
    epoll_now,
    epoll_wait_ns,
)
from penstock._core.events.clock cimport now_ns
from penstock._core.events.handle cimport Runnable

cdef enum:
    FIRST_SIZE = 64

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
        """Register a source, once; what stood at its descriptor before has been closed behind our back."""
        cdef uint32_t serial = self.last_serial + 1
        # The kernel is asked first: a number that is no descriptor makes no table.
        if self.control(EPOLL_CTL_ADD, source.fd, interest, serial) < 0:
            if errno != EEXIST or self.control(EPOLL_CTL_MOD, source.fd, interest, serial) < 0:
                PyErr_SetFromErrno(OSError)
        self.last_serial = serial
        if <size_t>source.fd >= self.size and self.resize(size_for(source.fd)) < 0:
            self.control(EPOLL_CTL_DEL, source.fd, 0, serial)
            raise MemoryError
        cdef Slot *slot = &self.slots[source.fd]
        cdef PyObject *former = slot.source
        Py_INCREF(source)
        slot[0] = Slot(<PyObject *>source, interest, serial)
        Py_XDECREF(former)
        return 0

    cdef int change(self, Source source, uint32_t interest) except -1:
        """Set a registered source's interest; a descriptor that was closed and opened again is registered anew."""
        cdef uint32_t serial = self.slots[source.fd].serial
        if self.control(EPOLL_CTL_MOD, source.fd, interest, serial) < 0:
            if errno != ENOENT or self.control(EPOLL_CTL_ADD, source.fd, interest, serial) < 0:
                PyErr_SetFromErrno(OSError)
        self.slots[source.fd].interest = interest
        return 0

    cdef int renew(self, Source source, uint32_t interest) except -1:
        """Set a registered source's interest under a new serial number: its descriptor may be another file now."""
        self.last_serial += 1
        self.slots[source.fd].serial = self.last_serial
        return self.change(source, interest)

    cdef int remove(self, Source source) except -1:
        """Take a source out of the kernel's set and the table; its descriptor may be closed already."""
        if self.at(source.fd) is source:
            self.control(EPOLL_CTL_DEL, source.fd, 0, 0)
            self.forget(source)
        return 0

    cdef int forget(self, Source source) except -1:
        """Take a source out of the table; its descriptor is about to be closed, which takes it out of the kernel's."""
        if self.at(source.fd) is not source:
            return 0
        cdef PyObject *former = self.slots[source.fd].source
        self.slots[source.fd].source = NULL
        self.forgets_left -= 1
        if self.forgets_left <= 0:
            self.shrink()
        Py_XDECREF(former)
        return 0

    cdef int shrink(self) noexcept:
        """Fit the table to its highest descriptor; after as many removals as it has slots, so each costs O(1)."""
        cdef size_t used = self.size
        while used and self.slots[used - 1].source is NULL:
            used -= 1
        if 4 * used < self.size and self.size > FIRST_SIZE:
            self.resize(size_for(used))
        self.forgets_left = <int64_t>self.size
        return 0

    cdef Source at(self, int fd):
        if fd < 0 or <size_t>fd >= self.size or self.slots[fd].source is NULL:
            return None
        return <Source>self.slots[fd].source

    cdef int control(self, int operation, int fd, uint32_t interest, uint32_t serial) noexcept:
        cdef epoll_event event
        if self.is_inherited():
            return 0
        event.events = interest
        event.data.u64 = (<uint64_t>serial << 32) | <uint32_t>fd
        return epoll_ctl(self.fd, operation, fd, &event)

    cdef int poll_now(self) noexcept:
        """Ask without waiting and without giving the GIL up: the call is shorter than handing the GIL over.

        The negative error number if the kernel refuses, as of `wait`.
        """
        return epoll_now(self.fd, self.events, BATCH)

    cdef int wait(self, int64_t timeout_ns, int64_t spin_ns) noexcept:
        """Blocks with the GIL released, for ever when `timeout_ns` is negative; busy-polls for `spin_ns` before."""
        cdef int count = 0
        cdef int64_t spin_end_ns
        with nogil:
            if spin_ns > 0:
                spin_end_ns = now_ns() + (min(spin_ns, timeout_ns) if timeout_ns >= 0 else spin_ns)
                while count == 0 and now_ns() < spin_end_ns:
                    count = epoll_now(self.fd, self.events, BATCH)
            if count == 0:
                count = epoll_wait_ns(self.fd, self.events, BATCH, timeout_ns)
        return count

    cdef int dispatch(self, int count) except -1:
        """Notify the sources of the last poll's events. OSError when the poll failed, unless a signal cut it short."""
        if count < 0 and count != -EINTR:
            raise OSError(-count, os.strerror(-count))
        self.polls += 1
        self.tell_from(0, count)
        return self.drop_stale() if self.stale_events > self.size else 0

    cdef int tell_from(self, int told, int count) except -1:
        try:
            while told < count:
                self.tell(&self.events[told])
                told += 1
        finally:
            # Left by an exception: the rest is dispatched all the same, since the kernel does not report an edge twice.
            if told < count:
                self.ask_again(&self.events[told])
                self.tell_from(told + 1, count)
        return 0

    cdef int tell(self, epoll_event *event) except -1:
        cdef Source source = self.source_of(event)
        if source is None:
            self.stale_events += 1
            return 0
        return source.on_events(event.events)

    cdef int ask_again(self, epoll_event *event) except -1:
        """Set the interest again, which makes an edge of what its source has not taken."""
        cdef Source source = self.source_of(event)
        if source is not None:
            self.control(EPOLL_CTL_MOD, source.fd, self.slots[source.fd].interest, self.slots[source.fd].serial)
        return 0

    cdef inline Source source_of(self, epoll_event *event):
        """The source of an event; None when it has left since it was registered."""
        cdef size_t fd = <uint32_t>event.data.u64
        if fd >= self.size or self.slots[fd].source is NULL or self.slots[fd].serial != event.data.u64 >> 32:
            return None
        return <Source>self.slots[fd].source

    cdef bint is_inherited(self) noexcept:
        """Return whether this process is a fork of the one that made the poller."""
        return self.forks_seen != forks

    cdef int reopen(self) except -1:
        """In a forked child that runs the inherited loop: an epoll set of its own, with the same interests."""
        close(self.fd)
        self.fd = epoll_create1(EPOLL_CLOEXEC)
        if self.fd < 0:
            PyErr_SetFromErrno(OSError)
        self.forks_seen = forks
        return self.register_all()

    cdef int drop_stale(self) except -1:
        """Move to a new epoll set.

        The old one has registrations of closed descriptors whose duplicates still bring events: the kernel removes
        them with the last duplicate, and cannot be told to do so before.
        """
        cdef int fd = epoll_create1(EPOLL_CLOEXEC)
        self.stale_events = 0
        if fd < 0:
            return 0
        close(self.fd)
        self.fd = fd
        return self.register_all()

    cdef int register_all(self) except -1:
        cdef size_t fd
        for fd in range(self.size):
            if self.slots[fd].source is not NULL:
                self.control(EPOLL_CTL_ADD, fd, self.slots[fd].interest, self.slots[fd].serial)
        return 0

    cdef int close(self) except -1:
        """Close the epoll descriptor, and release every source."""
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

    cdef int resize(self, size_t size) noexcept:
        """Resize the table. Return -1 without memory, and change nothing. The slots beyond `size` must be empty."""
        cdef Slot *slots = <Slot *>PyMem_Realloc(self.slots, size * sizeof(Slot))
        if slots is NULL:
            return -1
        if size > self.size:
            memset(slots + self.size, 0, (size - self.size) * sizeof(Slot))
        self.slots, self.size = slots, size
        self.forgets_left = <int64_t>size
        return 0

    def sources(self):
        """Every source in the table, by file descriptor."""
        return {fd: <object>self.slots[fd].source for fd in range(self.size) if self.slots[fd].source is not NULL}


cdef inline size_t size_for(size_t fd) noexcept:
    cdef size_t size = FIRST_SIZE
    while size <= fd:
        size *= 2
    return size


cdef int traverse(Poller self, visitproc visit, void *arg) noexcept:
    """For the garbage collector: a loop that is dropped unclosed is reachable from itself through here."""
    cdef size_t i
    for i in range(self.size):
        if self.slots[i].source is not NULL and visit(self.slots[i].source, arg):
            return 1
    return 0


set_traverse(Poller, <void *>traverse)
