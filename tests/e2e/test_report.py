"""`penstock report`: from a running process, from a trace of a finding, and as a browser shows it."""

import shutil
import struct
import subprocess
from pathlib import Path

import pytest

from penstock.loop import NATIVE
from tests.e2e.conftest import Command, wait_for

PROGRAM = """
import asyncio, time
from pathlib import Path

async def work(number):
    while True:
        await asyncio.sleep(0.01)

def parse():
    time.sleep(0.4)

async def main():
    names = ["<script>alert(1)</script>", "second"]
    kept = [asyncio.create_task(work(number), name=name) for number, name in enumerate(names)]
    await asyncio.sleep(0.3)
    Path("ready").touch()
    while True:
        parse()
        await asyncio.sleep(1)

asyncio.run(main())
"""


@pytest.fixture
def running(penstock: Command) -> subprocess.Popen[str]:
    """Return a program with a stall each second; its folder gets a trace for the first."""
    runtime = penstock.folder / "run"
    runtime.mkdir(mode=0o700)
    penstock.extra["PENSTOCK_RUNTIME_DIR"] = str(runtime)
    penstock.write("program.py", PROGRAM)
    process = penstock.start("run", "program.py", PENSTOCK_TASKS_TRACE_DIR="traces")
    wait_for((penstock.folder / "ready").exists, process)
    wait_for(lambda: any(runtime.glob("*-attach.sock")), process)
    return process


def test_a_report_of_a_process_names_what_is_wrong_and_is_one_file(
    penstock: Command, running: subprocess.Popen[str]
) -> None:
    result = penstock("report", str(running.pid), "-o", "report.html", "--seconds", "3")
    assert (result.returncode, result.stderr) == (0, "")
    assert "report.html: " in result.stdout
    page = (penstock.folder / "report.html").read_text()
    assert "&lt;script&gt;alert(1)" in page
    assert "<script" not in page
    assert "://" not in page
    if NATIVE:
        assert "program.py:10" in result.stdout.splitlines()[0]
        assert "time.sleep" in result.stdout.splitlines()[0]
        assert "recorded step" in page


@pytest.mark.skipif(not NATIVE, reason="the selector loop has no flight recorder")
def test_the_trace_of_a_finding_becomes_a_report(penstock: Command, running: subprocess.Popen[str]) -> None:
    wait_for(lambda: any((penstock.folder / "traces").glob("*.json")), running)
    (path,) = (penstock.folder / "traces").glob("*.json")
    result = penstock("report", str(path), "-o", "report.html")
    assert (result.returncode, result.stderr) == (0, "")
    assert "program.py:10" in result.stdout.splitlines()[0]
    assert "time.sleep(0.4)" in (penstock.folder / "report.html").read_text()


CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")


@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")
@pytest.mark.parametrize(("width", "scheme"), [(1100, "1"), (390, "0")], ids=["desktop-light", "phone-dark"])
def test_a_browser_shows_the_report(
    penstock: Command, running: subprocess.Popen[str], width: int, scheme: str, tmp_path: Path
) -> None:
    penstock("report", str(running.pid), "-o", "report.html", "--seconds", "1")
    picture = tmp_path / "report.png"
    options = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--hide-scrollbars",
        f"--user-data-dir={tmp_path}/browser",
    ]
    look = [f"--window-size={width},1400", f"--blink-settings=preferredColorScheme={scheme}", f"--screenshot={picture}"]
    line = [str(CHROMIUM), *options, *look, (tmp_path / "report.html").as_uri()]
    subprocess.run(line, capture_output=True, timeout=120, check=True)
    content = picture.read_bytes()
    assert struct.unpack(">II", content[16:24])[1] == 1400
    # an empty page is a few kilobytes
    assert len(content) > 20_000


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("report",), 2, "the following arguments are required"),
        (("report", "no-such.json"), 2, "cannot read no-such.json: No such file or directory"),
        (("report", "999999999"), 2, "no penstock process 999999999 of this user"),
        (("report", "1", "--seconds", "0"), 2, "'0' is not a number of seconds, more than 0, at most 60"),
    ],
)
def test_bad_arguments_are_one_line(penstock: Command, arguments: tuple[str, ...], code: int, says: str) -> None:
    penstock.refuses(*arguments, code=code, says=says)


def test_a_file_that_is_no_trace_and_a_folder_that_is_not_there_are_one_line(penstock: Command) -> None:
    penstock.write("notes.json", '{"a": 1}')
    penstock.refuses("report", "notes.json", code=1, says="no trace: it has no list of traceEvents")
    penstock.write("empty.json", '{"traceEvents": []}')
    penstock.refuses(
        "report", "empty.json", "-o", "not/there.html", code=1, says="cannot write not/there.html: No such file"
    )
