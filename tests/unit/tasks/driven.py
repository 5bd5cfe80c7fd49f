"""A loop driven by hand: a thread that writes a heartbeat as the reactor does, around callbacks of a test."""

import asyncio
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from penstock.tasks.detectors.stalls import StallWatch
from penstock.tasks.finding import Finding
from penstock.tasks.finding_log import FindingLog

Call = Callable[[], object]


class DrivenLoop:
    """A loop with the heartbeat of a native one. `run` runs it once, in a thread; `turns` are lists of callbacks."""

    def __init__(self) -> None:
        from penstock._core.tasks.heartbeat import Heartbeat

        self.heartbeat = Heartbeat()
        self.findings = FindingLog()
        self.posted: list[Call] = []
        self.reported = threading.Event()
        self.findings.listen(lambda finding: self.reported.set())

    def is_running(self) -> bool:
        return self.heartbeat.read().thread_id != 0

    def call_soon_threadsafe(self, callback: Call) -> None:
        self.posted.append(callback)

    def run(self, turns: Sequence[Sequence[Call]], rest: Call | None = None) -> None:
        """Run the turns here, `rest` at the end while the loop waits."""
        self.heartbeat.enter()
        try:
            for turn in turns:
                posted, self.posted = self.posted, []
                self.run_turn([*posted, *turn])
            if rest is not None:
                rest()
        finally:
            self.heartbeat.leave()

    def run_turn(self, callbacks: Sequence[Call]) -> None:
        self.heartbeat.begin_turn()
        for callback in callbacks:
            self.heartbeat.begin_callback(callback)
            callback()
            self.heartbeat.end_callback()
        self.heartbeat.end_turn()

    def run_in_thread(self, turns: Sequence[Sequence[Call]], rest: Call | None = None) -> None:
        thread = threading.Thread(target=self.run, args=(turns, rest))
        thread.start()
        thread.join()

    def stalls(self) -> list[Finding]:
        return [finding for finding in self.findings.all() if finding.kind == "stall"]

    def seen_stalls(self) -> list[Finding]:
        """Return the stalls that were seen while they lasted; the others are a busy machine's."""
        return [finding for finding in self.stalls() if finding.evidence["stack"]]


@contextmanager
def watched(watch: StallWatch, stall_s: float) -> Iterator[DrivenLoop]:
    """A driven loop that is watched."""
    loop = DrivenLoop()
    as_loop: asyncio.AbstractEventLoop = loop  # type: ignore[assignment]
    assert watch.watch(as_loop, loop.heartbeat, stall_s, loop.findings, name="driven")
    try:
        yield loop
    finally:
        watch.unwatch(as_loop)
