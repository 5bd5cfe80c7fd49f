"""The health page: words that two processes share, and its end."""

import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from penstock.runtime.supervisor.health.page import (
    DRAINING,
    PAGE_BYTES,
    SERVING,
    STARTING,
    HealthPage,
    HealthReading,
    rss_bytes,
)

WORKER = """
import sys
from penstock.runtime.supervisor.health.page import SERVING, HealthPage
page = HealthPage(int(sys.argv[1]))
page.set_state(SERVING)
page.note_work(3, 2**40, 5)
page.note_turn(7, 6)
page.close()
"""


@pytest.fixture
def page() -> Iterator[HealthPage]:
    with closing(HealthPage.create()) as made:
        yield made


def test_a_new_page_is_of_a_worker_that_starts(page: HealthPage) -> None:
    assert page.read() == HealthReading(STARTING, 0, 0, 0, 0, 0, 0, 0)
    assert os.fstat(page.fd).st_size == PAGE_BYTES
    assert not os.get_inheritable(page.fd)


def test_another_process_writes_words_that_are_read_here(page: HealthPage) -> None:
    command = [sys.executable, "-c", WORKER, str(page.fd)]
    subprocess.run(command, pass_fds=[page.fd], check=True, timeout=60)
    assert page.read() == HealthReading(SERVING, 7, 0, 6, 0, 3, 2**40, 5)


def test_each_state_is_read_as_it_was_written(page: HealthPage) -> None:
    for state in (SERVING, DRAINING, STARTING):
        page.set_state(state)
        assert page.read().state == state


def test_a_page_can_be_closed_twice_and_closes_its_descriptor_once() -> None:
    page = HealthPage.create()
    fd = page.fd
    page.close()
    other = os.open(os.devnull, os.O_RDONLY)
    page.close()
    assert page.fd == -1
    # the number may be taken again, and is not closed then
    os.close(other)
    with pytest.raises(OSError) as caught:
        os.fstat(fd)
    assert caught.value.errno == errno.EBADF


def test_a_page_closes_while_its_memory_is_in_use() -> None:
    page = HealthPage.create()
    with memoryview(page.memory) as held:
        page.close()
        assert held[0] == STARTING
    assert page.fd == -1


def test_a_page_is_a_file_without_a_name_where_there_is_no_memfd(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "memfd_create", raising=False)
    with closing(HealthPage.create()) as page, closing(HealthPage(os.dup(page.fd))) as other:
        assert os.fstat(page.fd).st_nlink == 0
        other.set_state(DRAINING)
        assert page.read().state == DRAINING


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="the kernel tells sizes in /proc")
def test_the_resident_memory_is_of_a_process_that_lives() -> None:
    own = rss_bytes(os.getpid())
    assert own is not None and own > 1_000_000
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        pass
    assert rss_bytes(ended.pid) is None
