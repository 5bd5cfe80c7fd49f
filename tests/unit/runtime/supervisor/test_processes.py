"""The reaping of forked workers, whose process the supervisor learns from their first message."""

import os
import signal
import socket
import sys
from collections.abc import Iterator
from dataclasses import replace

import pytest

from penstock.runtime.supervisor.processes import Processes
from penstock.runtime.supervisor.recycling import WorkerBounds
from penstock.runtime.supervisor.wakeups import Wakeups
from penstock.runtime.supervisor.worker_process import WorkerProcess
from tests.unit.runtime.supervisor.fleets import generation

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the supervisor is for Linux")


class PretendedTemplate:
    """A template that forks nothing: the test does, and says so."""

    pid = 2**30
    failure = None

    def fork(self, channel: socket.socket) -> None:
        pass

    def receive(self) -> None:
        pass


@pytest.fixture
def forked() -> Iterator[tuple[Processes, WorkerProcess]]:
    first = generation(1)
    first.orders = replace(first.orders, preload="none:none")
    first.template = PretendedTemplate()  # type: ignore[assignment]
    worker = WorkerProcess(1, first, WorkerBounds(), 0.0)
    processes = Processes({}, (), "")
    processes.launch(worker)
    yield processes, worker
    worker.close()


def test_a_worker_that_ends_before_its_first_message_is_taken_is_not_lost(
    forked: tuple[Processes, WorkerProcess], monkeypatch: pytest.MonkeyPatch
) -> None:
    processes, worker = forked
    # it has sent its number and is reaped before that is read
    ended = [(12345, signal.SIGKILL), (0, 0)]
    monkeypatch.setattr(os, "waitpid", lambda pid, flags: ended.pop(0))
    assert [*processes.reap()] == [] and [*processes.unforked()] == []
    worker.pid = 12345
    assert [*processes.unforked()] == [(worker, "was ended by SIGKILL")]
    assert processes.is_done


def test_a_template_that_does_not_fork_in_time_is_killed(
    forked: tuple[Processes, WorkerProcess], monkeypatch: pytest.MonkeyPatch
) -> None:
    processes, worker = forked
    killed = []
    monkeypatch.setattr(os, "kill", lambda *arguments: killed.append(arguments))
    assert [*processes.unforked()] == []
    # given up after its time to start
    worker.channel.close()
    assert [*processes.unforked()] == [(worker, "was not forked")]
    assert killed == [(PretendedTemplate.pid, signal.SIGKILL)]


def test_no_signal_is_lost_behind_a_storm_of_others() -> None:
    wakeups = Wakeups()
    former = {number: signal.getsignal(number) for number in (signal.SIGHUP, signal.SIGTERM)}
    try:
        with wakeups.signals((signal.SIGHUP, signal.SIGTERM)):
            for _ in range(2000):
                os.kill(os.getpid(), signal.SIGHUP)
            os.kill(os.getpid(), signal.SIGTERM)
            assert wakeups.take()[-1] == signal.SIGTERM
            os.kill(os.getpid(), signal.SIGTERM)
            assert [*wakeups.take(), *wakeups.take()] == [signal.SIGTERM]
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, former)
        wakeups.close()
