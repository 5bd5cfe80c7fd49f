"""A server that is abused, in short: the ordeals of tests/soak at a size any machine bears, with generous bounds."""

import shutil

import pytest

from penstock.loop import NATIVE

pytest.importorskip("uvicorn")
pytest.importorskip("httptools")

from tests.soak import ordeals
from tests.soak.ordeals import Bound

pytestmark = [
    pytest.mark.skipif(not NATIVE, reason="the bounds of connections are the native loop's"),
    pytest.mark.skipif(shutil.which("gcc") is None, reason="the load generator is built by gcc"),
]
BOUND = Bound(times=5, more_s=0.1)


def test_memory_is_bounded_at_many_times_the_capacity() -> None:
    ordeals.overload(2000, 3.0, ordeals.grows_little)


def test_slow_senders_do_not_slow_the_others() -> None:
    ordeals.slow_senders(300, 1.0, BOUND)


def test_a_storm_of_resets_does_not_slow_the_others() -> None:
    ordeals.resets(300, 1.0, BOUND)


def test_readers_that_do_not_read_are_disconnected() -> None:
    ordeals.readers_that_do_not_read(20, 1.0, BOUND)


def test_a_server_without_descriptors_serves_whom_it_has() -> None:
    ordeals.no_descriptors_left(1.0, BOUND)
