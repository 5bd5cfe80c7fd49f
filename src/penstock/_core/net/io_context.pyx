"""The I/O context: the parts of one reactor to which its watches, transports and listeners are connected.

Ownership: the context owns the ready queue, the poller, the one buffer that all small reads go through, and the pool
of the objects that they are delivered in.
"""

from cpython.mem cimport PyMem_Free, PyMem_Malloc

from libc.stdint cimport SIZE_MAX
from libc.stdlib cimport free, malloc

from penstock._core.events.poller cimport Poller, Source
from penstock._core.events.ready cimport Ready
from penstock._core.net.buffers cimport ReadPool
from penstock._core.net.deferred_accepts cimport DeferredAccepts
from penstock._core.net.gathered cimport forget_gathered
from penstock._core.limits.wheel cimport Wheel
from penstock._core.overload.deferred_reads cimport DeferredReads
from penstock._core.overload.lingering cimport LingeringConnections


cdef extern from *:
    """
    static void penstock_touch(char *block) { *(volatile char *)block = 0; }
    """
    void touch "penstock_touch"(char *block) noexcept


def warm_allocator():
    """Teach glibc that blocks of a read's size come and go. It holds for the whole process, so it is a choice of the program.

    It maps blocks from 128 KiB on and gives a free top of the heap back from 128 KiB on, until a mapped block has been
    freed: then it raises both bounds to that block's size and twice that. Without it each large block, such as a read
    that the program keeps, may cost an mmap or a brk, and the page faults after it. With it, freed blocks of up
    to 1 MiB stay with the process, whatever made them.
    """
    cdef char *block = <char *>malloc(4 * RECEIVE_BYTES)
    if block is not NULL:
        # Touched, or the compiler leaves the pair out.
        touch(block)
        free(block)


cdef class IOContext:
    """The parts of a reactor that its sources use."""

    def __cinit__(self):
        self.ready = Ready()
        self.poller = Poller()
        self.reads = ReadPool()
        self.deferred_reads = DeferredReads()
        self.lingering = LingeringConnections(self.poller)
        self.deferred_accepts = DeferredAccepts()
        self.deferred_accepts.lingering = self.lingering
        self.wheel = Wheel()
        self.listeners = []
        self.turn = 1
        self.read_budget_bytes = 256 * 1024
        self.accept_batch = self.accept_now = 128
        self.defer_now = -1
        self.backlog_limit = SIZE_MAX
        self.receive_buffer = <char *>PyMem_Malloc(RECEIVE_BYTES)
        if self.receive_buffer is NULL:
            raise MemoryError

    cdef bint is_backlog_full(self) noexcept:
        """Return whether an entry that came now would wait longer than the bound."""
        return self.deferred_reads.count + self.deferred_accepts.count >= self.backlog_limit

    def __dealloc__(self):
        PyMem_Free(self.receive_buffer)
        forget_gathered(&self.gathered)

    cdef int descriptor_freed(self) except -1:
        """Notify the listeners that wait for a descriptor: one was released."""
        cdef Source source
        if self.starved is not None:
            for source in self.starved:
                source.on_events(0)
        return 0
