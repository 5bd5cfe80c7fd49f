"""Sheds: the connections that one loop has closed unread, by reason, and their listener. Each count has its owner."""

from libc.stdint cimport uint64_t

from penstock._core.net.io_context cimport Wiring


cdef class Sheds:
    """The connections that a loop has shed while it was behind."""

    def __cinit__(self, Wiring wiring not None):
        self.wiring = wiring

    def watch(self, on_shed):
        """Call `on_shed()` in each turn in which the counts have risen; None: no more. From the loop's own thread."""
        self.on_shed, self.told = on_shed, self.total()

    def counts(self):
        """Return how many were turned away, how many left meanwhile, and how many were closed with their server."""
        parked = self.wiring.parked
        return self.wiring.turned_away + parked.turned_away, self.wiring.held.left + parked.left, parked.given_up

    @property
    def lingering(self):
        """The connections that were answered and are read on until their clients end them."""
        return self.wiring.lingering

    cdef uint64_t total(self) noexcept:
        cdef Wiring wiring = self.wiring
        cdef uint64_t parked = wiring.parked.turned_away + wiring.parked.left + wiring.parked.given_up
        return wiring.turned_away + wiring.held.left + parked

    cdef int tell(self, object loop) except -1:
        """Call the listener if the counts have risen. Its error goes to the loop's handler, and it is called no more."""
        if self.total() == self.told:
            return 0
        self.told = self.total()
        try:
            self.on_shed()
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as exc:
            self.on_shed = None
            loop.call_exception_handler({"message": "a listener to sheds failed", "exception": exc})
        return 0
