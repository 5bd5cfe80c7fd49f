"""The watching thread: one at a time, whatever interrupts what starts and stops it."""

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from penstock.tasks.stalls import StallWatch
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
        loop.run_in_thread([[lambda: loop.told.wait(10)]])
        assert len(loop.stalls()) == 1
        # the one that had to give way has ended, or is about to
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
        loop.run_in_thread([[lambda: loop.told.wait(10)]])
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
        assert "no thread to watch for stalls" in caplog.text
        loop.run_in_thread([[lambda: loop.told.wait(10)]])
        assert len(loop.stalls()) == 1


def test_a_watchdog_is_one_threads_at_a_time() -> None:
    from penstock._core.watchdog import Watchdog

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
