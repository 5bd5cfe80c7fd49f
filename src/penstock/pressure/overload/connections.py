"""Bounds on connections: their configuration, their statistics, and the report of a disconnected peer.

The native core counts bytes and time (`_core/limits/budget`, `_core/net/peer_timeouts`, `_core/net/wheel`); this module
has the work of a disconnection. asyncio's own loop has no bounds: its transports do not count.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from penstock.errors import SlowPeer
from penstock.loop import NATIVE
from penstock.loop.native import native_core
from penstock.loop.transports import native_transport

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Mapping

__all__ = [
    "MemoryStatistics",
    "bound_memory",
    "expect_request",
    "memory_statistics",
    "set_receive_deadline",
    "set_receiving",
]

logger = logging.getLogger("penstock.pressure")
NS_PER_S = 1_000_000_000
# a longer time is no bound
LONGEST_S = 1e9
# A thousand peers may be disconnected at once; more lines than this in a second are of no use.
LINES_PER_S = 10
NOTHING_CUT = MappingProxyType({"slow_reader": 0, "receive": 0, "idle": 0})


@dataclass(frozen=True, slots=True)
class MemoryStatistics:
    """The memory of this process's connections, and the number of those disconnected by a bound."""

    # the budget; None for none: then no bytes are counted
    budget_bytes: int | None = None
    # bytes in the write queues of native transports and in TLS above them; their maximum
    buffered_bytes: int = 0
    most_bytes: int = 0
    # connections that the budget pauses now, and how often it has paused one
    paused: int = 0
    pauses: int = 0
    # disconnected connections by reason: slow_reader, receive, idle
    disconnects: Mapping[str, int] = field(default_factory=lambda: NOTHING_CUT)


def memory_statistics() -> MemoryStatistics:
    """Return the figures of this process, over all its loops."""
    if not NATIVE:
        return MemoryStatistics()
    from penstock._core.limits.budget import shared_budget
    from penstock._core.net.limited import disconnect_counts

    budget, marks = shared_budget(), shared_budget().marks
    return MemoryStatistics(
        budget_bytes=marks and marks[0],
        buffered_bytes=budget.total,
        most_bytes=budget.most,
        paused=budget.paused_now,
        pauses=budget.pauses,
        disconnects=MappingProxyType(disconnect_counts()),
    )


def bound_memory(
    loop: asyncio.AbstractEventLoop,
    *,
    buffer_bytes: int | None = None,
    slow_reader_bytes: int | None = None,
    slow_reader_s: float | None = None,
    receive_s: float | None = None,
    idle_s: float | None = None,
) -> bool:
    """Bound the connections that a loop makes from now on. Return False for a loop that cannot.

    None is no bound. `buffer_bytes` is the budget of the process; the loop that sets it last decides. A peer is a slow
    reader above `slow_reader_bytes`, by default its connection's own high watermark. Times are in seconds.
    """
    core = native_core(loop)
    if core is None:
        return False
    from penstock._core.limits.budget import shared_budget
    from penstock._core.limits.peer_timeouts import TimeoutBounds

    budget = None
    if buffer_bytes is not None:
        budget = shared_budget()
        budget.set_marks(buffer_bytes)
    bounds = None
    if (slow_reader_s, receive_s, idle_s) != (None, None, None):
        bounds = TimeoutBounds(
            slow_reader_bytes=slow_reader_bytes or 0,
            slow_reader_ns=_ns(slow_reader_s),
            receive_ns=_ns(receive_s),
            idle_ns=_ns(idle_s),
        )
    core.limit_connections(budget, bounds)
    core.on_disconnect = _Reports(slow_reader=slow_reader_s, receive=receive_s, idle=idle_s).cut
    return True


def _ns(seconds: float | None) -> int:
    return 0 if seconds is None else max(1, round(min(seconds, LONGEST_S) * NS_PER_S))


def set_receive_deadline(transport: asyncio.BaseTransport, seconds: float | None) -> bool:
    """Disconnect the peer unless it has sent a whole request within `seconds`. Return False for a foreign transport.

    With None no deadline holds, neither `receive_s` nor `idle_s`, for instance while the request is worked on. It holds
    until it is set anew, or until `expect_request`; the loop does not estimate meanwhile. It is for protocols, which
    know where a request ends; the config need not set bounds. Raises ValueError for a time of 0 or less.
    """
    native = native_transport(transport)
    if native is not None:
        native.set_receive_deadline(seconds)
        core = native_core(native._loop)
        if core is not None and core.on_disconnect is None:
            core.on_disconnect = _Reports().cut
    return native is not None


def expect_request(transport: asyncio.BaseTransport) -> bool:
    """Expect a new request: `receive_s` holds from its first byte on, `idle_s` until then.

    Return False for a foreign transport.
    """
    native = native_transport(transport)
    if native is not None:
        native.expect_request()
    return native is not None


def set_receiving(transport: asyncio.BaseTransport, is_receiving: bool) -> bool:
    """Tell the loop whether a request has begun and is incomplete. Protocols that know use it.

    With True, `receive_s` holds from now on; a request that comes at a sufficient rate may last longer. With False,
    `idle_s` alone holds until the next True. The loop does not estimate until `expect_request`. Return False for a
    foreign transport.
    """
    native = native_transport(transport)
    if native is not None:
        native.set_receiving(is_receiving)
    return native is not None


class _Reports:
    """The reports of disconnected peers: an exception for the protocol, and lines in the log."""

    def __init__(self, **limits_s: float | None) -> None:
        self._limits_s = limits_s
        self._second = 0
        self._lines = self._left_out = 0

    def cut(self, transport: Any, reason: str, size_bytes: int, late_s: float) -> SlowPeer:
        peer = transport.get_extra_info("peername")
        message = f"{_name(peer)} {_fault(reason, size_bytes, late_s)}{self._limit(reason)}"
        if logger.isEnabledFor(logging.INFO) and self._may_log():
            left_out, self._left_out = self._left_out, 0
            fields = {"reason": reason, "peer": _name(peer), "bytes": size_bytes, "seconds": late_s}
            more = f"; {left_out} more were disconnected since the last line" if left_out else ""
            logger.info(
                "disconnected (%s): %s%s", reason, message, more, extra={"penstock": {**fields, "left_out": left_out}}
            )
        return SlowPeer(message, reason=reason, peer=peer, size_bytes=size_bytes, late_s=late_s)

    def _limit(self, reason: str) -> str:
        limit_s = self._limits_s.get(reason)
        return f" (pressure.{reason}_s = {limit_s:g})" if limit_s is not None else ""

    def _may_log(self) -> bool:
        second = int(time.monotonic())
        if second != self._second:
            self._second, self._lines = second, 0
        self._lines += 1
        self._left_out += self._lines > LINES_PER_S
        return self._lines <= LINES_PER_S


def _name(peer: object) -> str:
    if isinstance(peer, tuple) and len(peer) >= 2:
        return f"[{peer[0]}]:{peer[1]}" if ":" in str(peer[0]) else f"{peer[0]}:{peer[1]}"
    return str(peer) if peer else "a peer without an address"


def _fault(reason: str, size_bytes: int, late_s: float) -> str:
    if reason == "slow_reader":
        return f"took next to nothing of {size_bytes} bytes in {late_s:.1f} s"
    if reason == "receive":
        return f"sent {size_bytes} bytes of a request in {late_s:.1f} s, and had not sent it all"
    return f"neither sent nor took anything for {late_s:.1f} s"
