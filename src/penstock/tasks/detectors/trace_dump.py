"""The traces that a loop's findings leave in a folder: their choice, rate and size, and the thread that writes.

A finding may be raised in the loop's thread, in the watchdog's, and in a garbage collection. So the listener only
notes it and starts a thread, which reads the flight recorder in small portions and writes the file.
"""

from __future__ import annotations

import _thread
import json
import logging
import time
from typing import TYPE_CHECKING, NamedTuple, Protocol

from penstock.tasks.detectors.trace_folder import TraceFolder, file_name
from penstock.tasks.flighttrace import Event, about, finding_record, headings, records

if TYPE_CHECKING:
    from collections.abc import Iterator

    from penstock.config import TasksConfig
    from penstock.tasks.finding import Finding

__all__ = ["TraceDump"]

logger = logging.getLogger("penstock.tasks")

# the longest wait for the end of a stall, to write its whole length
LONGEST_STALL_WAIT_S = 1.0
# between two looks at a stall that lasts
STALL_EVERY_S = 0.005
# between two portions of events the loop's thread may have the GIL
PAUSE_S = 0.0005
# between two log lines about failures
LEAST_BETWEEN_FAILURES_S = 60.0
# a finding's own bytes in a file, beyond which its evidence is left out
MOST_FINDING_BYTES = 16 * 1024
# the number of the loop in the file
PROCESS = 1

_failed_s = -LEAST_BETWEEN_FAILURES_S


class Recorder(Protocol):
    """The observer of a loop with a flight recorder."""

    name: str

    def portions(self, since_ns: int) -> Iterator[list[Event]]:
        """Yield the events that ended since then, newest first."""


class _Wanted(NamedTuple):
    """The newest state of the file that is wanted: its finding, when it was found, and the file's name."""

    finding: Finding
    at_ns: int
    name: str

    def is_same(self, finding: Finding) -> bool:
        """Return whether the finding is this one, seen again or at its end."""
        return _key(self.finding) == _key(finding)


def _key(finding: Finding) -> tuple[str, float, bool]:
    return finding.kind, finding.since_s, bool(finding.evidence.get("turn"))


def _lasts(finding: Finding) -> bool:
    return finding.kind == "stall" and not finding.evidence.get("ended", True)


class TraceDump:
    """The traces of one loop: listens to its findings, and writes one file at a time in a thread."""

    def __init__(self, recorder: Recorder, config: TasksConfig) -> None:
        assert config.trace_dir is not None
        self._recorder = recorder
        self._config = config
        self._folder = TraceFolder(config.trace_dir, config.trace_files)
        self._began_s = -config.trace_every_s
        self._wanted: _Wanted | None = None
        self._written: _Wanted | None = None
        # held by the thread that writes; taken without waiting, so a garbage collection may take it
        self._writing = _thread.allocate_lock()
        self._is_closing = False

    def on_finding(self, finding: Finding) -> None:
        """Have the trace of a finding written, unless its kind or the rate excludes it. Any thread may call it."""
        if finding.kind not in self._config.trace_on or self._is_closing:
            return
        wanted, now_s = self._wanted, time.monotonic()
        if wanted is not None and wanted.is_same(finding):
            self._wanted = wanted._replace(finding=finding)
        elif now_s - self._began_s >= self._config.trace_every_s:
            self._began_s = now_s
            at_ns = int(finding.since_s * 1e9) if finding.kind == "stall" else time.monotonic_ns()
            self._wanted = _Wanted(finding, at_ns, file_name(self._recorder.name, finding.kind, time.time()))
        else:
            return
        self._start()

    def close(self, within_s: float = 1.0) -> None:
        """Write no further trace, and wait for the one that is being written. The loop's watcher calls this last."""
        self._is_closing = True
        # kept: no thread starts any more
        self._writing.acquire(timeout=within_s)

    def _start(self) -> None:
        if not self._writing.acquire(blocking=False):
            # that thread writes this state too
            return
        try:
            # not threading.Thread: its start() waits for the thread, and takes a lock that this thread may hold
            _thread.start_new_thread(self._run, ())
        except RuntimeError as error:
            self._writing.release()
            _log_failure(error)

    def _run(self) -> None:
        """Write until the newest state is written, also one that arrives in the last moment."""
        while True:
            try:
                while self._wanted is not self._written:
                    self._write()
            finally:
                self._writing.release()
            if self._wanted is self._written or not self._writing.acquire(blocking=False):
                return

    def _write(self) -> None:
        wanted = self._written = self._settled()
        try:
            self._folder.save(wanted.name, self._parts(wanted))
        except Exception as error:
            _log_failure(error)

    def _settled(self) -> _Wanted:
        """Return the wanted state, of a stall with its whole length if it ends soon."""
        until_s = time.monotonic() + LONGEST_STALL_WAIT_S
        while True:
            wanted = self._wanted
            assert wanted is not None
            if not _lasts(wanted.finding) or self._is_closing or time.monotonic() >= until_s:
                return wanted
            time.sleep(STALL_EVERY_S)

    def _parts(self, wanted: _Wanted) -> list[bytes]:
        """Return the file: the finding, and the newest events that its bytes have room for."""
        recorder, finding = self._recorder, _within(wanted.finding)
        heads = [_text(record) for record in headings(PROCESS, recorder.name)]
        heads.append(_text(finding_record(PROCESS, finding, wanted.at_ns)))
        other = about([finding])
        frame_bytes = sum(map(len, heads)) + len(_text(other)) + 200
        found, is_cut = self._newest(wanted, self._config.trace_bytes - frame_bytes)
        other["is_cut"] = is_cut
        body = b",\n".join([*heads, *reversed(found)])
        return [b'{"displayTimeUnit":"ms","otherData":', _text(other), b',"traceEvents":[\n', body, b"\n]}\n"]

    def _newest(self, wanted: _Wanted, most_bytes: int) -> tuple[list[bytes], bool]:
        """Return the records of the newest events, newest first, and whether others had no room."""
        since_ns = time.monotonic_ns() - int(self._config.trace_s * 1e9)
        found: list[bytes] = []
        seen: set[tuple[str, int]] = set()
        for portion in self._recorder.portions(since_ns):
            for event in portion:
                if _is_repeated(event, wanted.finding, seen):
                    continue
                texts = [_text(record) for record in records(PROCESS, [event])]
                most_bytes -= sum(len(text) + 2 for text in texts)
                if most_bytes < 0:
                    return found, True
                found += reversed(texts)
            time.sleep(PAUSE_S)
        return found, False


def _is_repeated(event: Event, finding: Finding, seen: set[tuple[str, int]]) -> bool:
    """Return whether a newer event has this one's data: the end of a task has its birth, a stall's end its begin."""
    if event.kind == "finding":
        return event.text == finding.message
    if event.kind == "end":
        seen.add(("birth", event.task))
        return False
    key = (event.kind, event.task if event.kind == "birth" else event.at_ns)
    if event.kind == "stall":
        is_repeated = key in seen
        seen.add(key)
        return is_repeated
    return event.kind == "birth" and key in seen


def _within(finding: Finding) -> Finding:
    """Return the finding, without its evidence if that is too large for a bounded file."""
    from dataclasses import replace

    from penstock.tasks.finding_fields import finding_json

    if len(_text(finding_json(finding))) <= MOST_FINDING_BYTES:
        return finding
    return replace(finding, message=finding.message[:1000], evidence={"left_out": "the evidence is too large"})


def _text(record: object) -> bytes:
    return json.dumps(record, separators=(",", ":")).encode()


def _log_failure(error: Exception) -> None:
    """Log that a trace was not written, at most once a minute in this process."""
    global _failed_s
    now_s = time.monotonic()
    if now_s - _failed_s >= LEAST_BETWEEN_FAILURES_S:
        _failed_s = now_s
        logger.warning("the trace of a finding could not be written: %s", error)
