"""Answers that take time: findings and cancellations from now on, and a trace of the next seconds."""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from itertools import count
from typing import TYPE_CHECKING, Any

from penstock.runtime.attach.messages import LaterAnswer, seconds, whole
from penstock.runtime.attach.plain import plain_cancellation, plain_finding
from penstock.tasks.cancellations import cancellations
from penstock.tasks.flighttrace import trace
from penstock.tasks.observers import registry

if TYPE_CHECKING:
    from collections.abc import Mapping

    from penstock.tasks.finding import Finding
    from penstock.tasks.flighttrace import Event

__all__ = ["CancellationsRequest", "FindingHub", "FindingsRequest", "TraceRequest", "finding_hub"]

MOST_FINDINGS = 512
LONGEST_WAIT_S = 30.0
LONGEST_TRACE_S = 60.0
MOST_EVENTS = 200_000
MOST_MARK = 2**53


class FindingHub:
    """The newest findings of all loops, also of closed ones, numbered in their order. Any thread may call it."""

    def __init__(self) -> None:
        # Reentrant: a garbage collection may find a lost task while this lock is held.
        self._lock = threading.RLock()
        self._kept: deque[tuple[int, Finding]] = deque(maxlen=MOST_FINDINGS)
        self._numbers = count(1)
        self._mark = 0
        self._is_listening = False

    def listen(self) -> None:
        """Keep the findings from now on, and the findings that the loops have kept so far."""
        if self._is_listening:
            return
        self._is_listening = True
        early = [finding for observer in registry.observers() for finding in observer.findings.all()]
        for finding in sorted(early, key=lambda finding: finding.wall_time_s):
            self.add(finding)
        registry.listen(self.add)

    def add(self, finding: Finding) -> None:
        """Keep a finding; of a fault that is reported again, the newest report."""
        with self._lock:
            number = next(self._numbers)
            self._kept.append((number, finding))
            self._mark = max(self._mark, number)

    def mark(self) -> int:
        """Return the number of the newest finding."""
        return self._mark

    def since(self, mark: int) -> tuple[list[Finding], int]:
        """Return the findings after a mark, and the mark of the newest."""
        with self._lock:
            kept = list(self._kept)
            return [finding for number, finding in kept if number > mark], max((0, *(number for number, _ in kept)))

    def forked(self) -> None:
        """Make a new lock in a forked child: a thread of the parent may have held it."""
        self._lock = threading.RLock()


finding_hub = FindingHub()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=finding_hub.forked)


class FindingsRequest(LaterAnswer):
    """The findings after `since`; without any, the next ones within `wait_s` seconds."""

    def __init__(self, message: Mapping[str, Any]) -> None:
        since = whole(message, "since", 0, 0, MOST_MARK)
        # a mark of a former process that had this number
        self._since = since if since <= finding_hub.mark() else 0
        self._until_s = time.monotonic() + seconds(message, "wait_s", 0, LONGEST_WAIT_S)

    def poll(self) -> Mapping[str, Any] | None:
        """Return the findings; None while there is none and time is left."""
        if finding_hub.mark() == self._since and time.monotonic() < self._until_s:
            return None
        found, mark = finding_hub.since(self._since)
        return {"findings": [plain_finding(finding) for finding in found], "mark": mark}


class CancellationsRequest(LaterAnswer):
    """The cancellations after `since`; without any, those that come within `wait_s` seconds."""

    def __init__(self, message: Mapping[str, Any]) -> None:
        since = whole(message, "since", 0, 0, MOST_MARK)
        # a mark of a former process that had this number
        self._since = since if since <= cancellations.mark() else 0
        self._until_s = time.monotonic() + seconds(message, "wait_s", 0, LONGEST_WAIT_S)

    def poll(self) -> Mapping[str, Any] | None:
        """Return the cancellations; None while there is none and time is left."""
        if cancellations.mark() == self._since and time.monotonic() < self._until_s:
            return None
        found, mark = cancellations.since(self._since)
        plain = [plain_cancellation(each) for each in found]
        return {"cancellations": plain, "mark": mark, "enabled": cancellations.is_enabled}


class TraceRequest(LaterAnswer):
    """The flight recorder's events of the next `seconds`, at level trace meanwhile."""

    def __init__(self, message: Mapping[str, Any]) -> None:
        length_s = seconds(message, "seconds", 5, LONGEST_TRACE_S)
        self._since_ns = time.monotonic_ns()
        self._until_s = time.monotonic() + length_s
        raised_level.begin()

    def poll(self) -> Mapping[str, Any] | None:
        """Return the trace; None before its time is over."""
        if time.monotonic() < self._until_s:
            return None
        loops = [(observer.name or "", self._newest(observer)) for observer in registry.observers()]
        return {"trace": trace(loops), "events": sum(len(events) for _, events in loops)}

    def _newest(self, observer: registry.Observer) -> list[Any]:
        found = [event for event in observer.events() if event.at_ns + event.took_ns >= self._since_ns]
        return [_without_quotes(event) for event in found[-MOST_EVENTS:]]

    def end(self) -> None:
        """Give the loops their former level."""
        raised_level.end()


def _without_quotes(event: Event) -> Event:
    """Return the event without the text after a colon in a finding's message: it may quote an exception."""
    return event._replace(text=event.text.partition(":")[0]) if event.kind == "finding" else event


class RaisedLevel:
    """Level trace of all loops while one request or several need it; the former levels come back with the last."""

    def __init__(self) -> None:
        self._count = 0
        self._former: list[tuple[registry.Observer, str]] = []

    def begin(self) -> None:
        """Raise the level for one more request."""
        self._count += 1
        if self._count == 1:
            self._former = [(observer, observer.statistics().level) for observer in registry.observers()]
            for observer, _ in self._former:
                observer.set_level("trace")

    def end(self) -> None:
        """End one request."""
        self._count -= 1
        if self._count == 0:
            former, self._former = self._former, []
            for observer, level in former:
                # a level that was set meanwhile stays
                if observer.statistics().level == "trace":
                    observer.set_level(level)

    def forked(self) -> None:
        """Forget the parent's requests in a forked child."""
        self._count, self._former = 0, []


raised_level = RaisedLevel()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=raised_level.forked)
