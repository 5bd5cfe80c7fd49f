"""Flow control: the watermarks of the bytes that wait to be sent, and the protocol's pauses.

Ownership: as `LimitedTransport`.
"""

from penstock._core._sys.python cimport PY_SSIZE_T_MAX
from penstock._core.net.limited cimport LimitedTransport

cdef enum:
    # asyncio's default watermark.
    HIGH_BYTES = 64 * 1024


cdef class FlowControlledTransport(LimitedTransport):
    """A transport that pauses its protocol while too many bytes wait to be sent."""

    def get_write_buffer_limits(self):
        """The watermarks `(low, high)`, in bytes."""
        return (self.low_bytes, self.high_bytes) if self.limits is None else self.limits

    def set_write_buffer_limits(self, high=None, low=None):
        """Set the watermarks, in bytes: above `high` the protocol is paused, at `low` resumed. ValueError if low > high."""
        high, low = watermarks(high, low, HIGH_BYTES)
        self.high_bytes, self.low_bytes, self.limits = whole_bytes(high), whole_bytes(low), (low, high)
        self.watermarks_set()

    cdef int watermarks_set(self) except -1:
        """Act on new watermarks."""
        return self.maybe_pause()

    cdef size_t waiting_bytes(self) noexcept:
        """Return how many bytes wait to be sent."""
        return self.queue.size_bytes

    cdef int maybe_pause(self) except -1:
        """Act on bytes that were queued."""
        if self.queue.budget is not None and self.waiting_bytes():
            self.account_bytes(True)
        if self.timeouts is not None:
            self.note_growth()
        return self.pause() if <Py_ssize_t>self.waiting_bytes() > self.high_bytes else 0

    cdef int pause(self) except -1:
        if not self.protocol_paused:
            self.protocol_paused = True
            self.call_protocol("pause_writing")
        return 0

    cdef int maybe_resume(self) except -1:
        """Act on bytes that were sent."""
        # A layer is never kept from writing down what it has: its own protocol is paused instead.
        if self.budget_pauses and not self.has_layer:
            return 0
        return self.resume() if <Py_ssize_t>self.waiting_bytes() <= self.low_bytes else 0

    cdef int resume(self) except -1:
        if self.protocol_paused:
            self.protocol_paused = False
            self.call_protocol("resume_writing")
        return 0

    cdef int on_budget_pause(self) except -1:
        if self.has_layer:
            return self.call_protocol("_control_app_writing")
        if self.budget_pauses:
            return self.pause()
        # Its own watermark has not been passed, or not for long.
        return self.resume() if <Py_ssize_t>self.waiting_bytes() <= self.high_bytes else 0

    cdef int call_protocol(self, str method) except -1:
        try:
            getattr(self.protocol, method)()
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as exc:
            self.loop.call_exception_handler({
                "message": f"protocol.{method}() failed",
                "exception": exc,
                "transport": self,
                "protocol": self.protocol,
            })
        return 0

    @property
    def _protocol_paused(self):
        return self.protocol_paused


cdef tuple watermarks(object high, object low, Py_ssize_t default_bytes):
    """Return the watermarks (high, low), completed as asyncio does. ValueError if low > high."""
    if high is None:
        high = default_bytes if low is None else 4 * low
    if low is None:
        low = high // 4
    if not high >= low >= 0:
        raise ValueError(f"high ({high!r}) must be >= low ({low!r}) must be >= 0")
    return high, low


cdef Py_ssize_t whole_bytes(object limit) except? -1:
    """A watermark in whole bytes: asyncio takes any number that compares, infinity too."""
    return PY_SSIZE_T_MAX if limit >= PY_SSIZE_T_MAX else int(limit)
