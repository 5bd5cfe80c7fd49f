"""Peer timeouts: whether the peer of a connection takes the sent data, sends the expected data, and is there at all.

Reads and writes only leave the turn's stamp here. When a timeout may have passed, the wheel has the connection
checked: the stamps, and the kernel's own counts. The kernel may hold data that the peer sent while the loop was busy,
and the peer may take bytes that left the write queue long ago.

Requests: the loop knows no protocol. It sees received bytes and the program's writes. A peer that still sends
`receive_s` after its first unanswered byte is disconnected, unless it sends at RATE_BYTES, for an upload may last. So
is a peer that sends nothing after it was accepted. A peer that was silent before may have sent all, and a handler may
be at work: then `receive_s` does not apply. An integration knows: see `LimitedTransport.set_receiving` and
`set_receive_deadline`.

Ownership: the transport owns its timeouts, and ends them before it is released; the wheel borrows both.
"""

cimport cython
from cpython.object cimport PyObject
from libc.stdint cimport int64_t, uint64_t

from penstock._core._sys.socket cimport SIOCINQ, SIOCOUTQ, ioctl
from penstock._core.limits.wheel cimport Wheel, is_armed

cdef enum:
    # A peer that sends this many bytes a second is not too slow, however long it takes.
    RATE_BYTES = 500
    # A slow reader that takes this part of what it may leave, in its time, is not too slow.
    FLOOR_PART = 64

cdef int64_t NS_PER_S = 1_000_000_000
cdef int64_t NEVER_NS = <int64_t>1 << 62


cdef class TimeoutBounds:
    """The timeouts of a loop, in nanoseconds; 0: off. `slow_reader_bytes` 0: each connection's own high watermark."""

    def __init__(self, *, slow_reader_bytes=0, slow_reader_ns=0, receive_ns=0, idle_ns=0):
        self.slow_reader_bytes, self.slow_reader_ns = slow_reader_bytes, slow_reader_ns
        self.receive_ns, self.idle_ns = receive_ns, idle_ns


@cython.no_gc
cdef class PeerTimeouts:
    """The stamps of one connection, and its entry on the wheel."""

    def __cinit__(self, Wheel wheel not None, TimeoutBounds bounds not None, int fd, bint is_accepted):
        self.wheel, self.bounds, self.fd, self.is_accepted = wheel, bounds, fd, is_accepted

    def __dealloc__(self):
        self.wheel.cancel(&self.due)

    cdef int begin(self, object owner, int64_t now_ns) except -1:
        """Begin to time the connection of `owner`."""
        self.due.owner = <PyObject *>owner
        self.active_ns = now_ns
        if not self.is_accepted:
            # Nothing is expected of the other side of a connection that we have opened.
            self.is_watching = True
            return 0
        if self.bounds.receive_ns:
            self.begun_ns = now_ns
            return self.watch_request()
        self.is_watching = True
        return self.wheel.arm(&self.due, now_ns + self.bounds.idle_ns) if self.bounds.idle_ns else 0

    cdef int end(self) except -1:
        self.is_over = self.is_watching = True
        return self.wheel.cancel(&self.due)

    cdef int watch_request(self) except -1:
        """Have the wheel check when the present request is late, unless it checks before."""
        self.is_watching = True
        if self.expectation == GUESSED and self.bounds.receive_ns and self.is_accepted and not self.is_over:
            arm_by(self, self.received_ns if self.is_overdue else self.begun_ns + self.bounds.receive_ns)
        return 0

    cdef int queue_grew(self, size_t queued_bytes, size_t high_bytes, int64_t now_ns) except -1:
        """Note that bytes are queued which the kernel does not take."""
        if self.bounds.slow_reader_ns == 0 or self.slow_since_ns or self.is_over:
            return 0
        if queued_bytes > self.slow_bytes(high_bytes):
            self.slow_since_ns, self.slow_from_bytes = now_ns, self.taken_bytes()
            arm_by(self, now_ns + self.bounds.slow_reader_ns)
        return 0

    cdef int check(self, int64_t now_ns, size_t queued_bytes, size_t high_bytes, bint is_reading) except -1:
        """Return the timeout that has passed, FINE for none; arm the wheel for the next."""
        cdef int64_t next_ns = NEVER_NS
        cdef int found = FINE
        if self.is_over:
            return FINE
        if self.slow_since_ns:
            found = self.check_slow_reader(now_ns, queued_bytes, high_bytes, &next_ns)
        if found == FINE:
            found = self.check_request(now_ns, is_reading, &next_ns)
        if found == FINE:
            found = self.check_idle(now_ns, &next_ns)
        if next_ns != NEVER_NS:
            arm_by(self, next_ns)
        return found

    cdef int check_slow_reader(self, int64_t now_ns, size_t queued_bytes, size_t high_bytes, int64_t *next_ns) except -1:
        """Check for a slow reader: it has taken next to nothing since the queue passed its bound."""
        cdef size_t slow_bytes = self.slow_bytes(high_bytes)
        if queued_bytes <= slow_bytes:
            self.slow_since_ns = 0
            return FINE
        if now_ns - self.slow_since_ns >= self.bounds.slow_reader_ns:
            if self.taken_bytes() - self.slow_from_bytes < max(slow_bytes // FLOOR_PART, 1):
                return SLOW_READER
            self.slow_since_ns, self.slow_from_bytes = now_ns, self.taken_bytes()
        next_ns[0] = min(next_ns[0], self.slow_since_ns + self.bounds.slow_reader_ns)
        return FINE

    cdef int check_request(self, int64_t now_ns, bint is_reading, int64_t *next_ns) except -1:
        cdef int64_t until_ns
        if not self.is_expecting():
            return FINE
        until_ns = self.until_ns()
        if now_ns >= until_ns:
            if not is_reading or in_kernel(self.fd, SIOCINQ) > 0:
                # The loop itself has not read.
                self.restart(now_ns, is_reading)
            elif self.expectation == BY_DEADLINE or self.received_ns == 0:
                return RECEIVE
            elif self.request_bytes() >= <uint64_t>(self.bounds.receive_ns * RATE_BYTES // NS_PER_S):
                self.restart(now_ns, False)
            elif self.expectation == RECEIVING or self.received_ns > until_ns:
                return RECEIVE
            else:
                # Silent since before it was late: its request may be whole. The next byte says that it was not.
                self.is_overdue, self.is_watching = True, False
                return FINE
            until_ns = max(now_ns + 1, self.until_ns())
        next_ns[0] = min(next_ns[0], until_ns)
        return FINE

    cdef int64_t until_ns(self) noexcept:
        """Return the time by which the expected data must have come."""
        return self.begun_ns + self.bounds.receive_ns if self.expectation == GUESSED else self.deadline_ns

    cdef uint64_t request_bytes(self) noexcept:
        """Return the bytes received toward the current message since its deadline started."""
        return self.total_bytes - self.expected_from_bytes if self.expectation == RECEIVING else self.received_bytes

    cdef bint is_expecting(self) noexcept:
        """Return whether data is expected of the peer."""
        if self.expectation != GUESSED:
            return self.expectation in (BY_DEADLINE, RECEIVING)
        if self.bounds.receive_ns == 0 or not self.is_accepted:
            return False
        if self.begun_ns == 0:
            # The next byte has the wheel look again.
            self.is_watching = False
        return self.begun_ns != 0

    cdef int restart(self, int64_t now_ns, bint is_busy) noexcept:
        """Start the peer's time anew. `is_busy`: only until the next check, when received data will have been read."""
        if self.expectation == BY_DEADLINE or (self.expectation == RECEIVING and is_busy):
            self.deadline_ns = max(self.deadline_ns, now_ns + self.wheel.tick_ns)
        elif self.expectation == RECEIVING:
            self.expected_from_ns, self.deadline_ns = now_ns, now_ns + self.bounds.receive_ns
            self.expected_from_bytes = self.total_bytes
        elif not is_busy and self.begun_ns:
            self.begun_ns, self.received_bytes, self.is_overdue = now_ns, 0, False
        return 0

    cdef int check_idle(self, int64_t now_ns, int64_t *next_ns) except -1:
        cdef int unsent_bytes
        if self.bounds.idle_ns == 0 or not self.is_accepted or self.expectation == NOTHING:
            return FINE
        if now_ns - self.active_ns >= self.bounds.idle_ns:
            unsent_bytes = in_kernel(self.fd, SIOCOUTQ)
            # The peer may take what has left our queue long ago, or have sent what we have not read.
            if unsent_bytes == self.unsent_bytes and in_kernel(self.fd, SIOCINQ) == 0:
                return IDLE
            self.active_ns, self.unsent_bytes = now_ns, unsent_bytes
        next_ns[0] = min(next_ns[0], self.active_ns + self.bounds.idle_ns)
        return FINE

    cdef int expect(self, int expects, int64_t now_ns, int64_t deadline_ns) except -1:
        """Set the expectation that an integration knows; `deadline_ns` is for BY_DEADLINE."""
        if expects == RECEIVING and self.bounds.receive_ns == 0:
            expects = UNKNOWN_PROTOCOL
        self.expectation, self.deadline_ns = expects, deadline_ns
        self.active_ns = self.expected_from_ns = now_ns
        self.begun_ns = 0
        if expects == RECEIVING:
            self.deadline_ns = now_ns + self.bounds.receive_ns
            self.expected_from_bytes = self.total_bytes - self.received_bytes
            arm_by(self, self.deadline_ns)
        if expects != BY_DEADLINE:
            # From here on bytes belong to another request, or to the rest of this one, which `expected_from_bytes` counts.
            self.received_bytes = 0
        self.is_overdue, self.is_accepted = False, True
        self.is_watching = expects != GUESSED or self.bounds.receive_ns == 0
        if expects == BY_DEADLINE:
            arm_by(self, deadline_ns)
        if expects != NOTHING and self.bounds.idle_ns:
            arm_by(self, now_ns + self.bounds.idle_ns)
        return 0

    cdef uint64_t taken_bytes(self) noexcept:
        """Return the bytes that have left the write queue and the kernel's, which reports room only from a third on."""
        return self.sent_bytes - in_kernel(self.fd, SIOCOUTQ)

    cdef int64_t since_ns(self, int reason, int64_t now_ns) noexcept:
        """Return for how long the peer has been late, in nanoseconds."""
        if reason == SLOW_READER:
            return now_ns - self.slow_since_ns
        if reason == IDLE:
            return now_ns - self.active_ns
        return now_ns - (self.begun_ns if self.expectation == GUESSED else self.expected_from_ns)

    cdef size_t counted(self, int reason, size_t waiting_bytes) noexcept:
        """Return the bytes for the report: those not taken, or those received."""
        return self.request_bytes() if reason == RECEIVE else waiting_bytes

    cdef size_t slow_bytes(self, size_t high_bytes) noexcept:
        return self.bounds.slow_reader_bytes or high_bytes


cdef int arm_by(PeerTimeouts timeouts, int64_t at_ns) except -1:
    """Arm the wheel, unless it is armed for an earlier time."""
    if not is_armed(&timeouts.due) or at_ns < timeouts.due.tick * timeouts.wheel.tick_ns:
        timeouts.wheel.arm(&timeouts.due, at_ns)
    return 0


cdef int in_kernel(int fd, unsigned long which) noexcept:
    """Return the bytes in the kernel's queue; 0 if it does not say."""
    cdef int size_bytes = 0
    return size_bytes if ioctl(fd, which, &size_bytes) == 0 else 0
