"""The config of `pressure`: one table of keys, four subjects, each with a class of its own. No behaviour."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from penstock.config.base import Group, key
from penstock.config.converters import BOOL, HOST, LIMIT, PATHS, PORT, choice, optional, seconds, whole
from penstock.errors import ConfigError

__all__ = [
    "SERVICE_LAG_HIGH_S",
    "AdmissionConfig",
    "ConnectionsConfig",
    "HealthConfig",
    "OverloadConfig",
    "PressureConfig",
]

# the default of pressure.lag_high_s under `penstock serve` with a limit
SERVICE_LAG_HIGH_S = 0.01


@dataclass(frozen=True)
class AdmissionConfig(Group):
    """Admission of requests by `penstock serve`: the limit, the queue, streams, health checks."""

    GROUP = "pressure"

    # concurrent requests in each process of `penstock serve`; further requests wait a short time or are shed. auto: an
    # adaptive limit from measured latencies
    limit: int | Literal["auto"] | None = key(None, LIMIT)
    # the first limit of auto. None: 10
    initial: int | None = key(None, optional(whole(1, "requests", highest=1000), "10"))
    # the longest wait of a request for its permit. None: half of the deadline, at most 50 ms
    max_wait_s: float | None = key(None, optional(seconds(zero=True), "half of deadline_s, at most 0.05"))
    # a request that cannot finish within so long of its arrival is shed
    deadline_s: float | None = key(None, optional(seconds(zero=False), "no deadline"))
    # paths without a limit, such as long polls; /events/* matches all paths below /events/
    exempt_paths: tuple[str, ...] = key((), PATHS)
    # of each gate: streaming responses, which hold no permit; a stream beyond the bound is shed. None: any number
    max_streams: int | None = key(None, optional(whole(0, "streams"), "any number"))
    # a response that lasts longer after its start is a stream
    stream_after_s: float = key(1.0, seconds(zero=True))
    # health checks: GET and HEAD requests for these paths are read first while the native loop is overloaded, and need
    # no permit; their number is bounded. Empty: no health checks
    health_paths: tuple[str, ...] = key(("/healthz", "/livez", "/readyz"), PATHS)


@dataclass(frozen=True)
class OverloadConfig(Group):
    """Overload of a loop: its detection, deferred reads and accepts, the bound on tasks."""

    GROUP = "pressure"

    # The native loop is overloaded when ready callbacks wait so long on average, for lag_for_s, until they wait less
    # than lag_low_s, by default half of it. Meanwhile it defers reads of new requests, slows accepts and scales its
    # gates.
    lag_high_s: float | None = key(None, optional(seconds(zero=False), "off"))
    lag_low_s: float | None = key(None, optional(seconds(zero=False), "half of lag_high_s"))
    lag_for_s: float = key(0.1, seconds(zero=True))
    # Deferred requests are read oldest first until the oldest has waited so long, then newest first. The backlog is
    # bounded to the requests that are read within that time; further ones are shed, where their protocol can. None:
    # five times lag_high_s, at most half of deadline_s. 0: newest first, none is shed.
    defer_s: float | None = key(None, optional(seconds(zero=True), "five times lag_high_s, at most half of deadline_s"))
    # a deferred request is closed unread when its client has shut down its side of the connection
    close_abandoned: bool = key(True, BOOL)
    # the bound of live tasks in a loop. Beyond it the loop warns from time to time, spawn_when_free() waits for a place
    # (wait), or a new task raises Overloaded (shed)
    max_tasks: int | None = key(None, optional(whole(1, "tasks"), "any number"))
    tasks_full: Literal["warn", "wait", "shed"] = key("warn", choice("warn", "wait", "shed"))


@dataclass(frozen=True)
class ConnectionsConfig(Group):
    """Bounds of connections: their number, their buffers and the pace of their peers."""

    GROUP = "pressure"

    # the listen backlog of `penstock serve`: connections in the kernel that are not accepted yet
    backlog: int = key(2048, whole(1, "connections", highest=65535))
    # of each server: further connections wait in the listen backlog
    max_connections: int | None = key(None, optional(whole(1, "connections"), "any number"))
    # bytes in the buffers of all connections of the process; beyond it the largest ones are paused
    buffer_bytes: int | None = key(None, optional(whole(1, "bytes"), "no bound"))
    # a peer that leaves more bytes unread, and reads almost none of them for slow_reader_s, is disconnected
    slow_reader_bytes: int | None = key(None, optional(whole(1, "bytes"), "each connection's own high watermark"))
    slow_reader_s: float | None = key(None, optional(seconds(zero=False), "never"))
    # a client that has not sent a whole request within so long is disconnected
    receive_s: float | None = key(None, optional(seconds(zero=False), "never"))
    # a connection without traffic for so long is closed
    idle_s: float | None = key(None, optional(seconds(zero=False), "never"))


@dataclass(frozen=True)
class HealthConfig(Group):
    """The health port of `penstock serve`."""

    GROUP = "pressure"

    # a port of `penstock serve` on which a thread answers /livez and /readyz, even while the loop is blocked
    health_port: int | None = key(None, optional(PORT, "no such port"))
    # the address of that port. None: the address of the service
    health_host: str | None = key(None, optional(HOST, "as --host"))
    # /livez fails when one callback has blocked the loop for so long
    health_stuck_s: float = key(10.0, seconds(zero=False))
    # /readyz fails while the loop is overloaded
    health_overload_unready: bool = key(False, BOOL)


# The last base comes first in the order of the fields.
@dataclass(frozen=True)
class PressureConfig(HealthConfig, ConnectionsConfig, OverloadConfig, AdmissionConfig):
    """Backpressure: the keys of its four subjects in one table."""

    def __post_init__(self) -> None:
        Group.__post_init__(self)
        if self.lag_high_s is not None and self.lag_low_s is not None and self.lag_low_s > self.lag_high_s:
            allowed = f"at most the {self.lag_high_s} of lag_high_s"
            raise ConfigError.bad_value("pressure.lag_low_s", self.lag_low_s, "PressureConfig()", allowed)
        if self.slow_reader_bytes is not None and self.slow_reader_s is None:
            key = "pressure.slow_reader_bytes"
            allowed = "only with pressure.slow_reader_s, the seconds after which such a peer is disconnected"
            raise ConfigError.bad_value(key, self.slow_reader_bytes, "PressureConfig()", allowed)
