"""The supervisor of uvicorn's workers, with real processes."""

import os
import threading
import time
from typing import Any

import pytest

pytest.importorskip("uvicorn")

import uvicorn

from penstock.integrations.uvicorn.workers import WorkerProcess

LONG_S = 60.0


class EndsWhenAsked(WorkerProcess):
    """A worker that ends between the question and its answer, as after a failed start."""

    def target(self, sockets: Any = None) -> None:
        self.child_conn.recv()
        os._exit(3)


class Answers(WorkerProcess):
    """A worker that answers once."""

    def target(self, sockets: Any = None) -> None:
        self.child_conn.send(self.child_conn.recv())
        threading.Event().wait(LONG_S)


def started(kind: type[WorkerProcess]) -> WorkerProcess:
    process = kind(uvicorn.Config("none:app"), [])
    process.start()
    return process


def test_a_worker_that_ends_before_it_answers_is_not_waited_for() -> None:
    process = started(EndsWhenAsked)
    began_s = time.monotonic()
    assert not process.is_alive(LONG_S)
    assert time.monotonic() - began_s < LONG_S / 2
    process.join()
    assert process.exitcode == 3


def test_a_worker_that_answers_is_alive() -> None:
    process = started(Answers)
    assert process.is_alive(LONG_S)
    process.kill()
    process.join()
    assert not process.is_alive(LONG_S)
