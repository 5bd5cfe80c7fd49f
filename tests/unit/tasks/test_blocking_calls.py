"""The blocking call of a stall: named by the audit hook and by the stack, never guessed, never with an argument."""

import asyncio
import fcntl
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType
from typing import Any

import pytest

import penstock
from penstock.config import Config
from penstock.config.groups import TasksConfig
from penstock.loop import NATIVE
from penstock.tasks.detectors.blocking_calls import Called, CallSite, call_site, called_name, name_call
from penstock.tasks.finding import Finding
from tests.support.retried import note_retry

needs_native = pytest.mark.skipif(not NATIVE, reason="only a native loop has a heartbeat")

STALL_S = 0.05
BLOCKED_S = 0.15
FROM_3_13 = sys.version_info >= (3, 13)


# --- on the real loop


def stall_of(block: Callable[[], object], *, name_calls: bool = True, tries: int = 5) -> Finding:
    """The finding of a callback that makes the call. A machine short of CPUs is tried again."""
    config = Config(tasks=TasksConfig(stall_s=STALL_S, name_calls=name_calls, check_s=None))
    findings: list[Finding] = []

    async def main() -> None:
        penstock.tasks.on_finding(findings.append)
        await asyncio.sleep(0)
        block()
        await asyncio.sleep(0)

    for _ in range(tries):
        findings.clear()
        penstock.run(main(), config=config)
        seen = [finding for finding in findings if finding.kind == "stall" and not finding.evidence["unsampled"]]
        if seen and (seen[0].evidence["blocked"] or seen[0].evidence["cause"] == "gil"):
            return seen[0]
        note_retry("a stall was not seen as blocked")
    raise AssertionError(f"no stall was seen as blocked: {findings}")


@needs_native
def test_a_sleep_is_named_with_the_hook_and_without() -> None:
    for name_calls in (True, False):
        finding = stall_of(lambda: time.sleep(BLOCKED_S), name_calls=name_calls)
        assert finding.evidence["call"] == "time.sleep"
        assert "blocked in time.sleep)" in finding.message


@needs_native
def test_a_sleep_imported_by_another_name_is_named() -> None:
    assert stall_of(nap, name_calls=False).evidence["call"] == "time.sleep"


_rest = time.sleep


def nap() -> None:
    _rest(
        BLOCKED_S,
    )


@needs_native
@pytest.mark.skipif(not FROM_3_13, reason="time.sleep has an audit event from 3.13 on")
def test_a_sleep_that_c_code_calls_is_named_by_the_hook() -> None:
    assert stall_of(lambda: list(map(time.sleep, [BLOCKED_S / 3] * 3))).evidence["call"] == "time.sleep"


@needs_native
def test_open_is_named(tmp_path: Path) -> None:
    """A FIFO without a writer blocks its reader."""
    fifo = tmp_path / "marked-secret"
    os.mkfifo(fifo)

    def block() -> None:
        writer = threading.Timer(BLOCKED_S, lambda: os.close(os.open(fifo, os.O_WRONLY)))
        writer.start()
        open(fifo).close()
        writer.join()

    finding = stall_of(block)
    assert finding.evidence["call"] == "open"
    assert "marked-secret" not in finding.message


@needs_native
def test_a_blocking_connect_is_named() -> None:
    """A listener whose queue is full accepts no more."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(f"\0penstock-test-{os.getpid()}")
    listener.listen(0)

    def accept_two() -> None:
        for _ in range(2):
            listener.accept()[0].close()

    def block() -> None:
        with socket.socket(socket.AF_UNIX) as first, socket.socket(socket.AF_UNIX) as second:
            first.connect(listener.getsockname())
            accepting = threading.Timer(BLOCKED_S, accept_two)
            accepting.start()
            second.connect(listener.getsockname())
            accepting.join()

    assert stall_of(block).evidence["call"] == "socket.connect"
    listener.close()


@needs_native
def test_a_subprocess_is_named() -> None:
    finding = stall_of(lambda: subprocess.run(["sleep", str(BLOCKED_S)], check=True))
    assert finding.evidence["call"] == "subprocess.Popen"


@needs_native
def test_a_shell_command_is_named() -> None:
    assert stall_of(lambda: os.system(f"sleep {BLOCKED_S}")).evidence["call"] == "os.system"


@needs_native
def test_a_lock_of_a_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    path.touch()

    def block() -> None:
        with path.open() as held, path.open() as wanted:
            fcntl.flock(held, fcntl.LOCK_EX)
            threading.Timer(BLOCKED_S, fcntl.flock, (held, fcntl.LOCK_UN)).start()
            fcntl.flock(wanted, fcntl.LOCK_EX)

    assert stall_of(block).evidence["call"] == "fcntl.flock"


@needs_native
def test_a_read_after_an_open_is_not_named_open(tmp_path: Path) -> None:
    read, write = os.pipe()

    def block() -> None:
        (tmp_path / "a").touch()
        threading.Timer(BLOCKED_S, os.write, (write, b"x")).start()
        os.read(read, 1)

    assert stall_of(block).evidence["call"] == "os.read"


@needs_native
def test_c_code_that_keeps_the_gil_is_named() -> None:
    """The stack is read after the call, where the thread may have gone on: then there is no name or another."""
    named = {stall_of(lambda: sum(range(20_000_000)), name_calls=False, tries=20).evidence["call"] for _ in range(5)}
    assert "sum" in named


@needs_native
def test_a_loop_that_wants_no_names_records_none() -> None:
    from penstock._core.tasks.heartbeat import Heartbeat

    heartbeat = Heartbeat()
    heartbeat.enter()
    heartbeat.begin_callback(None)
    open(os.devnull).close()
    assert heartbeat.call(0) is None
    heartbeat.leave()


@needs_native
def test_the_hook_records_calls_of_the_loops_thread_alone_and_only_in_callbacks() -> None:
    from penstock._core.tasks.heartbeat import Heartbeat

    heartbeat = Heartbeat()
    heartbeat.name_calls()
    heartbeat.enter()
    sqlite3.connect(":memory:").close()
    assert heartbeat.call(0) is None
    heartbeat.begin_callback(None)
    other = threading.Thread(target=partial(os.listdir, "."))
    other.start()
    other.join()
    assert heartbeat.call(0) is None
    since_ns = time.monotonic_ns()
    os.listdir(".")
    os.listdir(".")
    call = heartbeat.call(since_ns)
    assert call is not None
    assert (call.event, call.calls) == ("os.listdir", 2)
    assert since_ns <= call.first_ns <= call.newest_ns <= time.monotonic_ns()
    assert heartbeat.call(time.monotonic_ns()) is None
    heartbeat.end_callback()
    heartbeat.leave()
    os.scandir(".").close()
    call = heartbeat.call(since_ns)
    assert call is not None
    assert call.event == "os.listdir"


def connect() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.socket() as client:
        client.connect(listener.getsockname())


FOLDER = os.open(".", os.O_RDONLY)


def copy() -> None:
    with TemporaryDirectory() as folder:
        (Path(folder) / "a").touch()
        shutil.copyfile(Path(folder) / "a", Path(folder) / "b")


CALLS: list[tuple[str, Callable[[], object]]] = [
    ("open", lambda: os.close(os.open(os.devnull, os.O_RDONLY))),
    ("socket.connect", connect),
    ("socket.getaddrinfo", lambda: socket.getaddrinfo("127.0.0.1", 80)),
    ("socket.gethostbyname", lambda: socket.gethostbyname("127.0.0.1")),
    ("socket.getnameinfo", lambda: socket.getnameinfo(("127.0.0.1", 80), socket.NI_NUMERICHOST)),
    ("subprocess.Popen", lambda: subprocess.run(["true"], check=True)),
    ("os.system", lambda: os.system("true")),
    ("os.posix_spawn", lambda: os.waitpid(os.posix_spawn("/bin/true", ["true"], {}), 0)),
    ("os.scandir", lambda: os.scandir(".").close()),
    ("fcntl.flock", lambda: fcntl.flock(FOLDER, fcntl.LOCK_UN)),
    ("sqlite3.connect", lambda: sqlite3.connect(":memory:").close()),
    ("shutil.copyfile", copy),
    *([("time.sleep", lambda: time.sleep(0))] if FROM_3_13 else []),
]


@needs_native
@pytest.mark.parametrize(("event", "call"), CALLS, ids=[event for event, _ in CALLS])
def test_each_kind_of_call_is_recorded(event: str, call: Callable[[], object]) -> None:
    """One call may raise events of several kinds: the recorded ones are seen by a hook in Python beside it."""
    from penstock._core.tasks.heartbeat import Heartbeat

    heartbeat = Heartbeat()
    seen: set[str | None] = set()
    heartbeat.name_calls()

    def hook(name: str, arguments: object) -> None:
        # hooks run in their order of installation: the record is made already
        if watching:
            found = heartbeat.call(0)
            seen.add(found.event if found else None)

    watching = True
    sys.addaudithook(hook)
    heartbeat.enter()
    heartbeat.begin_callback(None)
    try:
        call()
    finally:
        watching = False
        heartbeat.end_callback()
        heartbeat.leave()
    assert event in seen


# --- what the stack shows


def here() -> FrameType:
    return sys._getframe(1)


def test_the_function_that_a_frame_calls_is_read_from_its_source() -> None:
    found: list[CallSite | None] = []

    def called() -> None:
        # a profile function sees the frame while C code runs
        def profile(frame: FrameType, event: str, function: Any) -> None:
            if event == "c_call" and function is zlib.crc32:
                found.append(call_site(frame))

        sys.setprofile(profile)
        try:
            zlib.crc32(
                b"some bytes",
            )
        finally:
            sys.setprofile(None)

    called()
    assert called_name(found[0]) == Called("zlib.crc32", False)


def test_a_frame_without_source_has_no_name() -> None:
    names: dict[str, Any] = {"here": here}
    exec(compile("frame = here()", "<none>", "exec"), names)
    assert called_name(call_site(names["frame"])) is None
    assert called_name(None) is None


# --- arithmetic


def audited(event: str, first_ns: int, newest_ns: int | None = None) -> Any:
    from penstock._core.tasks.rows import AuditedCall

    return AuditedCall(event, 1, first_ns, first_ns if newest_ns is None else newest_ns)


def lasted(since_ns: int, lasted_ns: int) -> Any:
    from tests.unit.tasks.test_causes import sight

    return sight()._replace(since_ns=since_ns, lasted_ns=lasted_ns)


@pytest.mark.parametrize(
    ("first_ns", "newest_ns", "explained"),
    [
        pytest.param(1010, 1010, True, id="early"),
        pytest.param(1010, 1090, True, id="many in a row"),
        pytest.param(1060, 1060, False, id="late"),
        pytest.param(990, 990, False, id="before the stall"),
        pytest.param(1010, 1200, True, id="and again since the stall was looked at"),
        pytest.param(1150, 1150, False, id="after its end"),
    ],
)
def test_a_call_explains_a_stall_by_its_time(first_ns: int, newest_ns: int, explained: bool) -> None:
    call = audited("socket.connect", first_ns, newest_ns)
    assert name_call(lasted(1000, 100), call, None) == ("socket.connect" if explained else None)


@pytest.mark.parametrize(
    ("event", "called", "named"),
    [
        ("open", None, "open"),
        ("open", Called("sock.recv", False), "sock.recv"),
        ("open", Called("list", True), "open"),
        ("socket.connect", Called("sock.connect", False), "socket.connect"),
        ("subprocess.Popen", Called("os.waitpid", False), "subprocess.Popen"),
        ("subprocess.Popen", Called("time.sleep", False), "time.sleep"),
        ("socket.getaddrinfo", Called("socket.getaddrinfo", False), "socket.getaddrinfo"),
    ],
)
def test_a_frame_that_is_in_another_call_overrules_an_event(event: str, called: Called | None, named: str) -> None:
    assert name_call(lasted(1000, 100), audited(event, 1010), called) == named
    if called is not None:
        assert name_call(lasted(1000, 100), None, called) == called.name
