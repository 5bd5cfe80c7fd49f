"""The config of `pressure`: one table of keys, four subjects, each with a class of its own. No behaviour."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from penstock.config.base import Group, key
from penstock.config.converters import BOOL, HOST, LIMIT, PATHS, PORT, choice, optional, seconds, whole
from penstock.errors import ConfigError

__all__ = ["AdmissionConfig", "ConnectionsConfig", "HealthConfig", "OverloadConfig", "PressureConfig"]


@dataclass(frozen=True)
class AdmissionConfig(Group):
    """How many requests `penstock serve` admits at once, and how long a request may wait."""

    GROUP = "pressure"

    # requests that `penstock serve` has an application work on at once, in each process; the rest wait a little or are
    # refused. auto: found by the service's own times
    limit: int | Literal["auto"] | None = key(None, LIMIT)
    # what auto starts from. None: 10
    initial: int | None = key(None, optional(whole(1, "requests", highest=1000), "10"))
    # how long a request may wait for its turn. None: half the deadline, and no more than 50 ms
    max_wait_s: float | None = key(None, optional(seconds(zero=True), "half of deadline_s, at most 0.05"))
    # a request that cannot be answered within so long of its arrival is refused
    deadline_s: float | None = key(None, optional(seconds(zero=False), "no deadline"))
    # paths that pressure.limit is not for, such as long polls; /events/* is all below it
    exempt_paths: tuple[str, ...] = key((), PATHS)
    # of each gate: responses that go on and hold no permit any more; a stream beyond is refused. None: any number
    max_streams: int | None = key(None, optional(whole(0, "streams"), "any number"))
    # an answer that goes on for so long after it began is a stream
    stream_after_s: float = key(1.0, seconds(zero=True))
    # health checks: GET and HEAD requests for these paths are read first while the native loop is behind, and pass the
    # gate; a bounded number of them. Empty: none are
    health_paths: tuple[str, ...] = key(("/healthz", "/livez", "/readyz"), PATHS)


@dataclass(frozen=True)
class OverloadConfig(Group):
    """When a loop is overloaded, and its response to that."""

    GROUP = "pressure"

    # the native loop is behind when what is ready waits so long on average, for lag_for_s, and has caught up below
    # lag_low_s, by default half of it: until then it does not read what adds work, slows accepts and scales its gates
    lag_high_s: float | None = key(None, optional(seconds(zero=False), "off"))
    lag_low_s: float | None = key(None, optional(seconds(zero=False), "half of lag_high_s"))
    lag_for_s: float = key(0.1, seconds(zero=True))
    # until then the oldest of what is not read goes first, and as much is kept as is read within that time; what comes
    # beyond is refused at once, where its protocol can. None: five times lag_high_s, at most half of deadline_s.
    # 0: newest first, nothing is refused
    hold_s: float | None = key(None, optional(seconds(zero=True), "five times lag_high_s, at most half of deadline_s"))
    # a client that shuts its side down while its request is not read yet has given up: the connection is closed unread
    drop_left: bool = key(True, BOOL)
    # so many tasks may live in a loop: beyond it a warning from time to time, also to those who wait for room by
    # spawn_when_free(), or Overloaded
    max_tasks: int | None = key(None, optional(whole(1, "tasks"), "any number"))
    tasks_full: Literal["warn", "wait", "refuse"] = key("warn", choice("warn", "wait", "refuse"))


@dataclass(frozen=True)
class ConnectionsConfig(Group):
    """Bounds of connections: their number, their buffers and the pace of their peers."""

    GROUP = "pressure"

    # for `penstock serve`: connections the kernel holds unaccepted
    backlog: int = key(2048, whole(1, "connections", highest=65535))
    # of each server: beyond it, connections wait in the kernel's backlog
    max_connections: int | None = key(None, optional(whole(1, "connections"), "any number"))
    # the bytes that may wait in the buffers of all connections of the process: above, the heaviest are paused
    buffer_bytes: int | None = key(None, optional(whole(1, "bytes"), "no bound"))
    # a peer that leaves more unread, and for slow_reader_s takes next to nothing of it, is disconnected
    slow_reader_bytes: int | None = key(None, optional(whole(1, "bytes"), "each connection's own high watermark"))
    slow_reader_s: float | None = key(None, optional(seconds(zero=False), "never"))
    # a client that for so long sends nothing after it was accepted, or goes on sending bit by bit, is disconnected
    receive_s: float | None = key(None, optional(seconds(zero=False), "never"))
    # an accepted connection on which nothing comes or goes for so long is closed
    idle_s: float | None = key(None, optional(seconds(zero=False), "never"))


@dataclass(frozen=True)
class HealthConfig(Group):
    """The health port of `penstock serve`."""

    GROUP = "pressure"

    # a port of `penstock serve` on which a thread answers /livez and /readyz, whatever the loop does
    health_port: int | None = key(None, optional(PORT, "no such port"))
    # where it listens. None: where the service does
    health_host: str | None = key(None, optional(HOST, "as --host"))
    # /livez fails when one callback has kept the loop for so long
    health_stuck_s: float = key(10.0, seconds(zero=False))
    # whether /readyz fails while the loop is overloaded
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
