"""`make soak`: bounds of workers, by a minute of import, 20 s of C code that holds the GIL, and five hangs each."""

import os
import re
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import pytest

from tests.e2e.conftest import Command, wait_for
from tests.e2e.test_workers import APP, Served
from tests.support.ports import free_port

IMPORT_S, GIL_S = 60, 20
HANGS, BOUND_S = 5, 3.0
PYTHON_IMPORT = f"import time\nuntil_s = time.monotonic() + {IMPORT_S}\nwhile time.monotonic() < until_s:\n    pass\n"
C_IMPORT = f"import ctypes\nctypes.PyDLL(None).usleep({IMPORT_S * 1_000_000})\n"

pytestmark = pytest.mark.timeout(600)


@pytest.fixture
def command(tmp_path: Path) -> Iterator[Command]:
    # only `refuses` needs the warm process
    made = Command(tmp_path, cast("Any", None))
    with made.stack:
        yield made
    for process in made.started:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


@pytest.mark.parametrize("slow", [PYTHON_IMPORT, C_IMPORT], ids=["python", "c"])
def test_an_import_of_a_minute_is_left_alone(command: Command, slow: str) -> None:
    served = Served(command, free_port(), "--workers", "1", "--hang-timeout", "1", text=slow + APP)
    wait_for(lambda: served.says("serves, after"), served.process, within_s=300.0)
    assert served.body() and not served.says("is killed")
    assert served.end() == 128 + signal.SIGTERM


def test_c_code_that_holds_the_gil_within_the_bound_is_left_alone(command: Command) -> None:
    served = Served(command, free_port(), "--workers", "1", "--hang-timeout", "30").ready()
    pid = served.body()[0]
    assert served.body(f"/gil{GIL_S}")[0] == pid
    assert served.body()[0] == pid and not served.says("is killed")


@pytest.mark.parametrize("path", ["/hang", "/gil"])
def test_each_hang_is_found_within_two_seconds_of_its_bound(command: Command, path: str) -> None:
    served = Served(command, free_port(), "--workers", "1", "--hang-timeout", str(BOUND_S)).ready()
    for number in range(1, HANGS + 1):
        served.ask(path)
        wait_for(lambda number=number: served.log.read_text().count("is killed") == number, served.process)
        served.ready()
    text = served.log.read_text()
    lasted_s = [float(each) for each in re.findall(r"has been blocked for ([0-9.]+) s", text)]
    print(path, lasted_s)
    assert len(lasted_s) == HANGS and all(BOUND_S <= each < BOUND_S + 2 for each in lasted_s)
    assert all('shop.py", line' in each for each in text.split("is killed")[1:])
