"""Limits of a connection: the process's budget of bytes, and the timeouts of its peer. Off, each costs a branch.

A protocol that the budget holds is paused as by its own watermark: at once if it is the one that writes, else soon
and in its own loop. Nothing more is read for it, since received data makes it write. A late peer is checked again
after all ready handles have run, and disconnected then: so a busy loop blames no peer.

Ownership: a transport removes its account and its timeouts from their lists by `unbind`, before it is released.
"""

from cpython.object cimport PyObject
from libc.stdint cimport int64_t, uint64_t

from penstock._core._sys.socket cimport SO_LINGER, SOL_SOCKET, linger, setsockopt
from penstock._core.events.clock cimport now_ns
from penstock._core.limits.budget cimport charge
from penstock._core.net.buffers cimport WriteQueue
from penstock._core.limits.peer_timeouts cimport RECEIVING, FINE, GUESSED, IDLE, NOTHING, REASONS, UNKNOWN_PROTOCOL, BY_DEADLINE, TimeoutBounds, PeerTimeouts, note_write
from penstock._core.net.transport cimport Transport

cdef enum:
    # asyncio's default watermarks.
    HIGH_BYTES = 64 * 1024
    LOW_BYTES = HIGH_BYTES // 4

REASON_NAMES = ("", "slow_reader", "receive", "idle")
# Of the process.
cdef uint64_t[REASONS] disconnect_count
cdef TimeoutBounds no_bounds = TimeoutBounds()
# Never changed: most transports never queue anything.
cdef WriteQueue NOTHING_QUEUED = WriteQueue()


def disconnect_counts():
    """Return the number of peers that were disconnected in this process, by reason."""
    return {REASON_NAMES[reason]: disconnect_count[reason] for reason in range(1, REASONS)}


cdef class LimitedTransport(Transport):
    """A transport with an optional budget and optional peer timeouts."""

    def __cinit__(self, *args, **kwargs):
        self.queue = NOTHING_QUEUED
        self.high_bytes, self.low_bytes = HIGH_BYTES, LOW_BYTES

    cdef WriteQueue own_queue(self):
        """Return the queue to add to."""
        if self.queue is NOTHING_QUEUED:
            self.queue = WriteQueue()
        return self.queue

    cdef int bind(self) except -1:
        """Take on the present limits of the loop."""
        if self.io.budget is not None:
            self.own_queue().budget = self.io.budget
            self.queue.account.owner = <PyObject *>self
        if self.io.bounds is not None:
            self.timeouts = PeerTimeouts(self.io.wheel, self.io.bounds, self.fd, self.server is not None)
            self.timeouts.begin(self, now_ns())
        return 0

    cdef int unbind(self) except -1:
        """Leave the budget and the timer wheel."""
        budget = self.queue.budget
        if budget is not None:
            self.queue.budget = None
        if self.timeouts is not None:
            self.timeouts.end()
        if budget is not None:
            budget.leave(&self.queue.account)
            budget.balance(False)
        return 0

    cdef int stop_io(self) except -1:
        return self.unbind()

    cdef int release(self) except -1:
        if self.is_open:
            self.unbind()
        return Transport.release(self)

    # --- bytes

    cdef int account_bytes(self, bint may_pause) except -1:
        """Account for bytes that came in or went out. `may_pause`: the protocol may be called now."""
        self.queue.budget.account(&self.queue.account)
        return self.apply_budget() if may_pause and self.queue.account.is_paused else 0

    def _budget_changed(self):
        """Hear that the budget has paused or resumed it. Any thread may call this, at any time."""
        try:
            self.loop.call_soon_threadsafe(self._apply_budget, context=self.protocol_context())
        except RuntimeError:
            # Its loop is closed: nothing is written or read.
            pass

    def _apply_budget(self):
        self.apply_budget()

    cdef int apply_budget(self) except -1:
        cdef bint pauses = self.queue.budget is not None and self.queue.account.is_paused
        if pauses == self.budget_pauses or self.conn_lost or not self.is_open:
            return 0
        self.budget_pauses = pauses
        return self.on_budget_pause()

    cdef int on_budget_pause(self) except -1:
        """Act on a change of `budget_pauses`."""
        return 0

    cdef object protocol_context(self):
        """Return the context in which the protocol is called from outside."""
        return self.given_context

    def _count_layer(self, size_t size_bytes, bint moves=False):
        """Account for the bytes that a layer above, such as TLS, keeps and has not written yet.

        `moves`: the rest is about to be written, and is accounted for then.
        """
        cdef Py_ssize_t growth = <Py_ssize_t>size_bytes - <Py_ssize_t>self.layer_bytes
        self.has_layer = True
        if growth == 0 or self.conn_lost or not self.is_open:
            return
        self.layer_bytes = size_bytes
        if self.queue.budget is not None:
            charge(self.queue.budget, &self.queue.account, growth)
            if not moves:
                self.account_bytes(growth > 0)
        if growth > 0:
            self.note_growth()

    @property
    def _budget_pauses(self):
        """Whether the budget has paused it."""
        return self.budget_pauses

    # --- time

    cdef bint can_read(self) noexcept:
        """Return whether received data is read."""
        return True

    cdef bint is_lent(self) noexcept:
        """Return whether other code uses the descriptor unseen, as sendfile does."""
        return False

    cdef int64_t stamp_ns(self) noexcept:
        return self.io.ready.stamp_ns or now_ns()

    cdef int note_answer(self) except -1:
        """Note that the program writes."""
        note_write(self.timeouts, self.stamp_ns(), self.io.turn)
        return 0

    cdef int note_growth(self) except -1:
        """Note that more bytes are queued than before."""
        if self.timeouts is not None:
            self.timeouts.queue_grew(self.queue.size_bytes + self.layer_bytes, self.high_bytes, self.stamp_ns())
        return 0

    cdef int check_timeouts(self) except -1:
        """Check the timeouts, for the wheel's time has come. Runs no code of the program."""
        if self.find_timeout() != FINE:
            self.loop.call_soon(self._disconnect_late, context=self.protocol_context())
        return 0

    cdef int find_timeout(self) except -1:
        cdef PeerTimeouts timeouts = self.timeouts
        cdef int64_t at_ns = now_ns()
        if self.io.turn - timeouts.active_turn <= 1:
            # A stamp is as old as the callback it was left in, which may have lasted until the loop last waited.
            worked_ns = self.io.wait_began_ns if self.io.wait_turn == self.io.turn else at_ns
            timeouts.active_ns = max(timeouts.active_ns, <int64_t>worked_ns)
        if self.is_lent():
            note_write(timeouts, at_ns, self.io.turn)
        return timeouts.check(at_ns, self.queue.size_bytes + self.layer_bytes, self.high_bytes, self.can_read())

    def _disconnect_late(self):
        """Check again after all ready handles have run, for received data is read by now; then disconnect."""
        cdef int reason
        if self.timeouts is not None and self.is_open and not self.conn_lost:
            reason = self.find_timeout()
            if reason != FINE:
                self.disconnect(reason)

    cdef int disconnect(self, int reason) except -1:
        """End the connection. An idle one with nothing to send is closed; any other is reset, which frees its buffers."""
        cdef size_t waiting_bytes = self.queue.size_bytes + self.layer_bytes
        cdef linger at_once = linger(1, 0)
        cdef int64_t late_ns = self.timeouts.since_ns(reason, now_ns())
        disconnect_count[reason] += 1
        exc = self.explain(REASON_NAMES[reason], self.timeouts.counted(reason, waiting_bytes), late_ns / 1e9)
        if reason == IDLE and waiting_bytes == 0:
            exc = None
        else:
            setsockopt(self.fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once))
        self._force_close(exc)
        return 0

    def explain(self, reason, size_bytes, double late_s):
        """Return the exception for `connection_lost`."""
        if self.io.on_disconnect is not None:
            try:
                return self.io.on_disconnect(self, reason, size_bytes, late_s)
            except Exception as exc:
                self.io.on_disconnect = None
                self.loop.call_exception_handler(
                    {"message": "on_disconnect failed, and is removed", "exception": exc, "transport": self}
                )
        return ConnectionAbortedError(f"{reason}: {size_bytes} bytes in {late_s:.1f} s")

    def set_receive_deadline(self, seconds):
        """Disconnect the peer unless it sends a whole request within `seconds`. The loop stops estimating.

        With None no request is expected, such as while one is handled: neither `receive_s` nor `idle_s` applies.
        It holds until the next call, or until `expect_request()`. Raises ValueError unless `seconds` is above 0.
        """
        if seconds is None:
            self.expect(NOTHING, 0)
        elif not 0 < seconds < 1e9:
            raise ValueError(f"seconds = {seconds!r}: allowed is more than 0, or None for no deadline")
        else:
            self.expect(BY_DEADLINE, <int64_t>(<double>seconds * 1e9))

    def expect_request(self):
        """Expect a new request: `receive_s` applies from its first byte on, and `idle_s` until then."""
        self.expect(GUESSED, 0)

    def set_receiving(self, bint is_receiving):
        """Say whether the peer has begun a request and not sent all of it. Then `receive_s` applies from now on.

        Its time starts anew after each period with 500 bytes a second; not with each call that says the same. Otherwise
        `receive_s` does not apply, and the loop guesses no more. `idle_s` always applies. No effect without timeouts.
        """
        cdef int expects = RECEIVING if is_receiving else UNKNOWN_PROTOCOL
        if self.timeouts is not None and self.timeouts.expectation != expects:
            self.expect(expects, 0)

    def set_protocol(self, protocol):
        """Switch to another protocol, which gets the next event. `receive_s` does not apply to it."""
        Transport.set_protocol(self, protocol)
        self._switched()

    def _switched(self):
        """Expect no requests from now on, unless an integration says so."""
        if self.timeouts is not None and self.timeouts.expectation in (GUESSED, RECEIVING):
            self.timeouts.expectation = UNKNOWN_PROTOCOL

    cdef int expect(self, int expects, int64_t within_ns) except -1:
        if self.conn_lost or not self.is_open:
            return 0
        if self.timeouts is None:
            self.timeouts = PeerTimeouts(self.io.wheel, self.io.bounds or no_bounds, self.fd, True)
            self.timeouts.begin(self, now_ns())
        return self.timeouts.expect(expects, now_ns(), now_ns() + within_ns)
