"""Shed counts: the connections that one loop has closed unread, by reason, and their listener."""

from libc.stdint cimport uint64_t

from penstock._core.net.io_context cimport IOContext


cdef class ShedCounts:
    """The connections that a loop has shed while it was behind."""

    def __cinit__(self, IOContext io not None):
        self.io = io

    def watch(self, on_shed):
        """Call `on_shed()` in each turn in which the counts have risen; None: no more. From the loop's own thread."""
        self.on_shed, self.notified = on_shed, self.total()

    def counts(self):
        """Return three counts of connections: answered unread, abandoned by the client, closed with their server."""
        accepts = self.io.deferred_accepts
        return self.io.shed_count + accepts.shed, self.io.deferred_reads.abandoned + accepts.abandoned, accepts.closed

    @property
    def lingering(self):
        """The lingering connections: answered, and read on until their clients end them."""
        return self.io.lingering

    cdef uint64_t total(self) noexcept:
        cdef IOContext io = self.io
        cdef uint64_t accepts = io.deferred_accepts.shed + io.deferred_accepts.abandoned + io.deferred_accepts.closed
        return io.shed_count + io.deferred_reads.abandoned + accepts

    cdef int notify(self, object loop) except -1:
        """Call the listener if the counts have risen. Its error goes to the loop's handler, and it is called no more."""
        if self.total() == self.notified:
            return 0
        self.notified = self.total()
        try:
            self.on_shed()
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as exc:
            self.on_shed = None
            loop.call_exception_handler({"message": "a listener to sheds failed", "exception": exc})
        return 0
