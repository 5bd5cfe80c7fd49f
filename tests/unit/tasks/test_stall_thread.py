"""The watching thread: one at a time, whatever interrupts what starts and stops it."""

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from penstock.tasks.detectors.stalls import StallWatch
from tests.support.waiting import wait_until
from tests.unit.tasks.driven import watched

if StallWatch()._watchdog is None:
    pytest.skip("needs the native code", allow_module_level=True)

STALL_S = 0.06


@pytest.fixture
def watch() -> Iterator[StallWatch]:
    watch = StallWatch()
    yield watch
    watch.close()
    assert watch._thread is None


def watching() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "penstock-watchdog"]


@pytest.fixture
def interrupted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """`threading.Thread.start` raises KeyboardInterrupt after the thread has begun, as often as this list is long."""
    plain, left = threading.Thread.start, [1]

    def start(self: threading.Thread) -> None:
        plain(self)
        if self.name == "penstock-watchdog" and left:
            left.pop()
            raise KeyboardInterrupt

    monkeypatch.setattr(threading.Thread, "start", start)
    return left


def test_ctrl_c_as_the_thread_begins_leaves_one_thread(watch: StallWatch, interrupted: list[int]) -> None:
    before = len(watching())
    with watched(watch, STALL_S) as loop:
        with pytest.raises(KeyboardInterrupt):
            loop.run([[lambda: None]])
        for _ in range(3):
            loop.run([[lambda: None]])
        assert not interrupted
        loop.run_in_thread([[lambda: loop.reported.wait(10)]])
        assert len(loop.stalls()) == 1
        # the thread that lost the claim has ended, or is about to
        for thread in watching():
            if thread is not watch._thread:
                thread.join(10)
        assert len(watching()) == before + 1


def test_ctrl_c_as_the_thread_is_stopped_leaves_it_to_watch_on(
    watch: StallWatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupts(*_: Any) -> None:
        raise KeyboardInterrupt

    with watched(watch, STALL_S) as loop:
        loop.run([[lambda: None]])
        assert watch._thread is not None
        with monkeypatch.context() as patch:
            patch.setattr(watch._thread, "join", interrupts)
            with pytest.raises(KeyboardInterrupt):
                watch.close()
        loop.run_in_thread([[lambda: loop.reported.wait(10)]])
        assert len(loop.stalls()) == 1


def test_a_loop_runs_though_no_thread_can_be_had(
    watch: StallWatch, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def start(self: threading.Thread) -> None:
        raise MemoryError("no thread")

    ran: list[int] = []
    with watched(watch, STALL_S) as loop:
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", start)
            loop.run([[lambda: ran.append(1)]])
        assert ran == [1]
        assert "stalls are not watched" in caplog.text
        loop.run_in_thread([[lambda: loop.reported.wait(10)]])
        assert len(loop.stalls()) == 1


def test_a_watchdog_is_one_threads_at_a_time() -> None:
    from penstock._core.tasks.watchdog import Watchdog

    watchdog, told = Watchdog(), []

    def other() -> None:
        told.append(watchdog.claim())
        watchdog.release()
        try:
            watchdog.wait()
        except RuntimeError:
            told.append(False)

    assert watchdog.claim()
    thread = threading.Thread(target=other)
    thread.start()
    thread.join()
    assert told == [False, False]
    assert watchdog.wait() is None
    watchdog.release()
    with pytest.raises(RuntimeError, match="has claimed"):
        watchdog.wait()


def sleeps(thread: threading.Thread) -> int:
    """How often the thread has gone to sleep so far."""
    text = Path(f"/proc/self/task/{thread.native_id}/status").read_text()
    return int(text.partition("\nvoluntary_ctxt_switches:")[2].split()[0])


def test_a_loop_that_rests_leaves_the_thread_asleep_and_its_next_stall_is_found(watch: StallWatch) -> None:
    def thread_sleeps() -> bool:
        assert watch._thread is not None
        before = sleeps(watch._thread)
        time.sleep(STALL_S * 3)
        return sleeps(watch._thread) == before

    with watched(watch, STALL_S) as loop:

        def run() -> None:
            loop.heartbeat.enter()
            loop.run_turn([lambda: None])
            for count in range(1, 4):
                wait_until(thread_sleeps)
                loop.run_turn([lambda count=count: wait_until(lambda: len(loop.stalls()) == count)])
            loop.heartbeat.leave()

        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
        assert len(loop.stalls()) == 3
        assert not [finding for finding in loop.stalls() if finding.evidence["lasted_s"] > 5]


def schedules() -> list[str]:
    """The threads whose run queues this process has open, as the kernel names their files."""
    files = (os.path.realpath(path) for path in Path("/proc/self/fd").iterdir())
    return [file for file in files if file.endswith("/schedstat")]


def test_the_file_of_the_loops_thread_is_open_from_the_runs_begin_and_stays_until_the_loop_is_not_watched(
    watch: StallWatch,
) -> None:
    before = schedules()
    seen: list[tuple[str, list[str], list[str]]] = []

    def stands_still() -> None:
        at_begin = schedules()
        wait_until(lambda: len(loop.stalls()) > len(seen))
        own = f"/proc/{os.getpid()}/task/{threading.get_native_id()}/schedstat"
        seen.append((own, at_begin, schedules()))

    with watched(watch, STALL_S) as loop:
        assert schedules() == before
        # in two threads, one after the other: the second one's takes the place of the first's
        for _ in range(2):
            loop.run_in_thread([[stands_still]])
    for own, at_begin, once_looked_at in seen:
        assert once_looked_at == at_begin
        assert [file for file in at_begin if file not in before] == [own]
    assert len(seen) == 2
    wait_until(lambda: schedules() == before)
