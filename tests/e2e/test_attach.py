"""The attach socket of a running process: its answers, its bounds, and the process's life around it."""

import json
import os
import shutil
import signal
import socket
import stat
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import pytest

from penstock.loop import NATIVE
from penstock.monitor.client import AttachedProcess, Refused
from tests.soak.attachers import fuzz
from tests.support.attached import asked, line_of, running, socket_path
from tests.support.waiting import wait_until

native_only = pytest.mark.skipif(not NATIVE, reason="of the native server, or of stalls, which a heartbeat shows")

SERVICE = """
import asyncio, os, sys, penstock

async def leaf():
    await asyncio.Event().wait()

def serve_child():
    asyncio._set_running_loop(None)
    penstock.run(asyncio.sleep(30))
    os._exit(0)

async def turn_about(at):
    await asyncio.sleep(0)
    await box[1 - at]

async def main():
    global tasks
    tasks = [asyncio.create_task(leaf(), name=f"leaf-{number}") for number in range(5)]
    print("ready", flush=True)
    while command := await asyncio.to_thread(sys.stdin.readline):
        exec(command, globals())
        print("done", flush=True)

penstock.run(main())
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    # pytest's own is too long for the path of a socket
    made = Path(mkdtemp(prefix="attach", dir="/tmp"))
    yield made
    shutil.rmtree(made, ignore_errors=True)


@pytest.fixture
def service(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator["subprocess.Popen[str]"]:
    monkeypatch.setenv("PENSTOCK_RUNTIME_DIR", str(folder))
    with running(SERVICE, folder) as process:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        yield process


def order(process: "subprocess.Popen[str]", command: str, *, waits: bool = True) -> None:
    """Have the program run a command in its loop."""
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write(command + "\n")
    process.stdin.flush()
    if waits:
        assert process.stdout.readline() == "done\n"


def counts(pid: int) -> tuple[int, int]:
    """Return the number of descriptors and threads of a process."""
    return len(os.listdir(f"/proc/{pid}/fd")), len(os.listdir(f"/proc/{pid}/task"))


def resident_bytes(pid: int) -> int:
    """Return the resident memory of a process."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def blocked(process: "subprocess.Popen[str]", command: str) -> None:
    """Have the program's loop run a command that blocks it, and wait until it does."""
    order(process, command, waits=False)
    with AttachedProcess(process.pid, within_s=30) as attached:
        wait_until(lambda: any(loop.get("blocked") for loop in attached.ask("snapshot")["loops"]), every_s=0.05)


# --- answers


def test_a_process_says_what_it_is_and_what_its_loops_do(service: "subprocess.Popen[str]") -> None:
    with AttachedProcess(service.pid) as attached:
        answer = attached.ask("about")
        assert answer["process"]["pid"] == answer["pid"] == service.pid
        assert (answer["partial"], answer["version"]) == (False, 1)
        (loop,) = answer["loops"]
        assert loop["running"] and loop["tasks_live"] == 6 and loop["utilization"] < 0.9


def test_a_snapshot_has_the_tasks_by_site_and_the_lanes(service: "subprocess.Popen[str]") -> None:
    with AttachedProcess(service.pid) as attached:
        (loop,) = attached.ask("snapshot")["loops"]
        # up to 3.11 a comprehension is a function of its own
        sites = {site["site"]["function"]: site["live"] for site in loop["sites"]}
        assert sum(live for function, live in sites.items() if function.startswith("main")) == 5
        assert loop["tasks"]["live"] == 6
        assert "io" in [lane["name"] for lane in loop["lanes"]]


@native_only
def test_a_site_has_the_times_of_its_steps_from_level_trace_on(service: "subprocess.Popen[str]") -> None:
    with AttachedProcess(service.pid, within_s=30) as attached:

        def counts() -> dict[str, int]:
            (loop,) = attached.ask("snapshot")["loops"]
            assert all(site["step"]["count"] == site["schedule"]["count"] for site in loop["sites"])
            return {site["site"]["text"]: site["step"]["count"] for site in loop["sites"]}

        assert set(counts().values()) == {0}
        assert all("step" not in group for group in attached.ask("tasks", group="site")["groups"])
        attached.ask("level", level="trace")
        order(service, "box = [asyncio.create_task(turn_about(at), name=f'turn-{at}') for at in (0, 1)]")
        wait_until(lambda: sum(counts().values()) >= 2)
        groups = attached.ask("tasks", group="site")["groups"]
        assert any(group.get("step", {}).get("count") and group["schedule"]["p99_s"] >= 0 for group in groups)


def test_tasks_are_sorted_filtered_and_cut_by_the_process(service: "subprocess.Popen[str]") -> None:
    with AttachedProcess(service.pid) as attached:
        answer = attached.ask("tasks", sort="number", descending=False, limit=2, filter="LEAF")
        assert [task["name"] for task in answer["tasks"]] == ["leaf-0", "leaf-1"]
        assert (answer["total"], answer["matched"]) == (6, 5)
        (group, *_) = attached.ask("tasks", group="stack")["groups"]
        assert (group["count"], group["awaits_kind"]) == (5, "event")


def test_a_task_is_shown_with_its_chain_and_the_tasks_around_it(service: "subprocess.Popen[str]") -> None:
    order(service, "waiter = asyncio.create_task(asyncio.wait([tasks[0]]), name='waiter')")
    with AttachedProcess(service.pid) as attached:
        (row,) = attached.ask("tasks", filter="leaf-0")["tasks"]
        found = attached.ask("task", number=row["number"])
        assert [place["function"] for place in found["chain"]] == ["leaf", "Event.wait"]
        assert [each["name"] for each in found["waiters"]] == ["waiter"]
        assert found["awaits"]["kind"] == "event"


def test_tasks_that_wait_for_each_other_are_a_cycle_in_graph_and_tree(service: "subprocess.Popen[str]") -> None:
    order(service, "box = [asyncio.create_task(turn_about(at), name=f'turn-{at}') for at in (0, 1)]")
    with AttachedProcess(service.pid) as attached:
        wait_until(lambda: attached.ask("graph")["cycles"])
        assert sorted(attached.ask("graph")["cycles"][0]) == ["turn-0", "turn-1"]
        tree = attached.ask("tasks", tree=True)
        assert sorted(tree["cycles"][0]) == ["turn-0", "turn-1"]
        assert {"turn-0", "turn-1"} & {root["name"] for root in tree["roots"]}


@native_only
def test_findings_are_followed_by_their_mark(service: "subprocess.Popen[str]") -> None:
    with AttachedProcess(service.pid, within_s=30) as attached:
        mark = attached.ask("findings")["mark"]
        order(service, "import time; time.sleep(0.3)")
        found = attached.ask("findings", since=mark, wait_s=20)
        assert [finding["kind"] for finding in found["findings"]][:1] == ["stall"]
        assert found["mark"] > mark


def test_a_trace_raises_the_level_only_while_it_records(service: "subprocess.Popen[str]") -> None:
    with AttachedProcess(service.pid, within_s=30) as attached, AttachedProcess(service.pid) as other:
        answers: list[dict[str, Any]] = []
        thread = threading.Thread(target=lambda: answers.append(attached.ask("trace", seconds=1.0)))
        thread.start()
        wait_until(lambda: other.ask("about")["loops"][0]["level"] == "trace")
        order(service, "await_me = asyncio.create_task(asyncio.sleep(0))")
        thread.join(20)
        assert answers[0]["events"] > 0
        wait_until(lambda: other.ask("about")["loops"][0]["level"] == "time")


# --- while the loop is blocked


@native_only
def test_a_blocked_loop_is_seen_with_its_stack(service: "subprocess.Popen[str]") -> None:
    blocked(service, "import time; time.sleep(30)")
    with AttachedProcess(service.pid, within_s=30) as attached:
        (loop,) = attached.ask("snapshot")["loops"]
        assert loop["blocked"]["kind"] == "callback"
        assert any("in main" in line for line in loop["blocked"]["stack"])


@native_only
def test_c_code_that_holds_the_gil_does_not_keep_a_client_waiting(service: "subprocess.Popen[str]") -> None:
    blocked(service, "import ctypes; ctypes.PyDLL(None).sleep(30)")
    with AttachedProcess(service.pid, within_s=30) as attached:
        answer, took_s = timed(attached, "snapshot")
        assert answer["partial"]
        (loop,) = answer["loops"]
        assert loop["blocked"]["kind"] == "callback" and loop["blocked"]["lasted_s"] > 0.05
        assert "tasks" in answer["unread"] and "GIL" in answer["reason"]
        # a busy machine may delay one answer, not the best of several
        assert min([took_s, *(timed(attached, "about")[1] for _ in range(20))]) < 0.1


def timed(attached: AttachedProcess, command: str) -> tuple[dict[str, Any], float]:
    since_s = time.perf_counter()
    return attached.ask(command), time.perf_counter() - since_s


@native_only
def test_stacks_are_read_while_c_code_computes_with_the_gil(service: "subprocess.Popen[str]") -> None:
    blocked(service, "pow(7, 10**9)")
    with AttachedProcess(service.pid, within_s=30) as attached:
        texts = [attached.ask("stacks").get("native_stacks") for _ in range(20)]
        assert any(text and "in main" in text for text in texts)


@native_only
def test_a_thread_that_waits_in_the_kernel_gets_no_signal(service: "subprocess.Popen[str]") -> None:
    # the signal of the stacks would end this sleep
    blocked(service, "import ctypes; ctypes.PyDLL(None).sleep(4); print('slept', flush=True)")
    with AttachedProcess(service.pid, within_s=30) as attached:
        assert attached.ask("stacks").get("native_stacks") is None
        assert attached.ask("snapshot")["partial"]


# --- who may ask, and what


def test_the_socket_is_private_to_its_user(service: "subprocess.Popen[str]", folder: Path) -> None:
    assert stat.S_IMODE(socket_path(folder, service.pid).stat().st_mode) == 0o600


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_another_user_is_refused_even_with_the_file_open(service: "subprocess.Popen[str]", folder: Path) -> None:
    path = socket_path(folder, service.pid)
    folder.chmod(0o755)
    path.chmod(0o666)
    program = (
        "import os, socket, sys; os.setuid(65534); sock = socket.socket(socket.AF_UNIX); sock.connect(sys.argv[1]); "
        'sock.sendall(b\'{"version":1,"command":"about"}\\n\'); print(len(sock.recv(100)))'
    )
    result = subprocess.run([sys.executable, "-c", program, str(path)], capture_output=True, text=True, timeout=60)
    assert result.stdout == "0\n" or "ConnectionReset" in result.stderr or "BrokenPipe" in result.stderr


@pytest.mark.parametrize("command", ["cancel", "gc", "set-limit"])
def test_an_action_needs_the_permission_of_the_config(service: "subprocess.Popen[str]", command: str) -> None:
    with AttachedProcess(service.pid) as attached, pytest.raises(Refused, match=r"monitor\.actions is false"):
        attached.ask(command, number=1, gate="x", limit=1)


def test_a_permitted_action_cancels_a_task(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENSTOCK_RUNTIME_DIR", str(folder))
    with running(SERVICE, folder, PENSTOCK_MONITOR_ACTIONS="1") as process, AttachedProcess(process.pid) as attached:
        (row,) = attached.ask("tasks", filter="leaf-3")["tasks"]
        assert "leaf-3" in attached.ask("cancel", number=row["number"])["done"]
        wait_until(lambda: attached.ask("tasks", filter="leaf-3")["matched"] == 0)
        assert "collected" in attached.ask("gc")["done"]


def test_a_process_that_wants_no_monitor_has_no_socket(folder: Path) -> None:
    program = "import asyncio, penstock; penstock.run(asyncio.sleep(1.0))"
    environ = {**os.environ, "PENSTOCK_RUNTIME_DIR": str(folder), "PENSTOCK_MONITOR_ATTACH": "0"}
    process = subprocess.Popen([sys.executable, "-c", program], env=environ)
    assert process.wait(60) == 0
    assert list(folder.iterdir()) == []


SECRET = "s3cr3t-b0dy"
LEAKY = """
import asyncio, gc, sys, time, penstock
from penstock.tasks import spawn

async def fails(body):
    raise ValueError(body)

async def stalls(body):
    await asyncio.sleep(0)
    time.sleep(0.3)

async def waits(body):
    await asyncio.Event().wait()

async def main():
    body = sys.argv[1]
    lost = asyncio.create_task(fails(body))
    kept = spawn(fails(body))
    waiting = asyncio.create_task(waits(body))
    asyncio.get_running_loop().call_later(1000, print, body)
    await asyncio.sleep(0.1)
    del lost
    gc.collect()
    await stalls(body)
    print("ready", flush=True)
    await asyncio.Event().wait()

penstock.run(main())
"""


@native_only
def test_no_answer_quotes_the_programs_data(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENSTOCK_RUNTIME_DIR", str(folder))
    with running(LEAKY, folder, SECRET) as process, AttachedProcess(process.pid, within_s=30) as attached:
        assert process.stdout is not None
        for line in process.stdout:
            if line == "ready\n":
                break
        wait_until(lambda: attached.ask("findings")["mark"] >= 3)
        answers = [
            attached.ask(command, **arguments)
            for command, arguments in (
                ("about", {}),
                ("snapshot", {}),
                ("tasks", {}),
                ("tasks", {"group": "stack"}),
                ("tasks", {"tree": True}),
                ("task", {"number": 1}),
                ("graph", {}),
                ("stacks", {}),
                ("findings", {}),
                ("trace", {"seconds": 0.1}),
            )
        ]
        kinds = {finding["kind"] for finding in answers[8]["findings"]}
        assert {"stall", "failed", "exception_unretrieved"} <= kinds
        for answer in answers:
            assert SECRET not in json.dumps(answer)


# --- bad clients


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"\n", "not a JSON line"),
        (b"[1]\n", "a message is a JSON object"),
        (b'{"version":2,"command":"about"}\n', "version 2 is not known here, 1 is"),
        (b'{"version":1}\n', "a message has a command"),
        (line_of("frobnicate"), "unknown command"),
        (line_of("tasks", limit=-1), "limit = -1: a whole number"),
        (line_of("tasks", sort="beauty"), "sort = "),
        (line_of("level", level="loud"), "level = "),
        (line_of("task", number=10**30), "no live task has the number"),
        (line_of("task", number=True), "no live task has the number"),
        (b"[" * 60_000 + b"\n", "not a JSON line"),
        (b"x" * 70_000 + b"\n", "a message has at most 65536 bytes"),
    ],
)
def test_a_bad_message_is_answered_with_the_reason(
    service: "subprocess.Popen[str]", folder: Path, line: bytes, reason: str
) -> None:
    answer = asked(socket_path(folder, service.pid), line)
    assert not answer["ok"] and reason in answer["error"]


def test_torn_connections_leave_no_thread_and_no_descriptor(service: "subprocess.Popen[str]", folder: Path) -> None:
    path, before = socket_path(folder, service.pid), counts(service.pid)
    for number in range(200):
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(str(path))
            # at every stage: nothing sent, half a line, a line whose answer is not read, a reset
            sock.sendall((b"", b'{"ver', line_of("snapshot"), line_of("trace", seconds=0.2))[number % 4])
            if number % 3 == 0:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    with AttachedProcess(service.pid, within_s=30) as attached:
        wait_until(lambda: attached.ask("about")["loops"][0]["level"] == "time")
    wait_until(lambda: counts(service.pid) == before, told=lambda: f"{counts(service.pid)}, {before} before")


def test_200_attaches_leave_descriptors_and_threads_as_they_were(service: "subprocess.Popen[str]") -> None:
    def attach() -> None:
        with AttachedProcess(service.pid) as attached:
            attached.ask("snapshot")
            attached.ask("tasks", group="site")

    before = counts(service.pid)
    # the first answers import what makes them
    for _ in range(20):
        attach()
    rss_bytes = resident_bytes(service.pid)
    for _ in range(200):
        attach()
    wait_until(lambda: counts(service.pid) == before)
    assert resident_bytes(service.pid) - rss_bytes < 1024 * 1024


@native_only
def test_more_clients_than_the_server_takes_give_up_the_idlest(service: "subprocess.Popen[str]", folder: Path) -> None:
    path = socket_path(folder, service.pid)
    idle = [socket.socket(socket.AF_UNIX) for _ in range(64)]
    try:
        for sock in idle:
            sock.connect(str(path))
        assert asked(path, line_of("about"))["ok"]
    finally:
        for sock in idle:
            sock.close()


def test_a_client_that_reads_slowly_gets_its_whole_answer(service: "subprocess.Popen[str]", folder: Path) -> None:
    order(service, "more = [asyncio.create_task(leaf(), name='x' * 100) for _ in range(3000)]")
    with socket.socket(socket.AF_UNIX) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.settimeout(30)
        sock.connect(str(socket_path(folder, service.pid)))
        sock.sendall(line_of("tasks", limit=3000, patience_ms=10_000))
        received = b""
        while not received.endswith(b"\n"):
            received += sock.recv(1000)
    assert len(json.loads(received)["tasks"]) == 3000


def test_lines_in_one_packet_are_answered_in_order(service: "subprocess.Popen[str]", folder: Path) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(30)
        sock.connect(str(socket_path(folder, service.pid)))
        sock.sendall(line_of("about", patience_ms=10_000) + line_of("tasks", patience_ms=10_000) + line_of("nosuch"))
        with sock.makefile("rb") as lines:
            found = [json.loads(lines.readline()) for _ in range(3)]
    assert ["process" in found[0], "tasks" in found[1], found[2]["ok"]] == [True, True, False]


@native_only
def test_messages_of_every_shape_leave_a_service_as_it_was() -> None:
    fuzz(400)


# --- the life of a process


def test_a_process_that_ends_removes_its_file(service: "subprocess.Popen[str]", folder: Path) -> None:
    assert service.stdin is not None
    service.stdin.close()
    assert service.wait(60) == 0
    assert not socket_path(folder, service.pid).exists()


def test_a_killed_process_is_not_listed_and_its_file_goes(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from penstock.monitor.client import processes

    monkeypatch.setenv("PENSTOCK_RUNTIME_DIR", str(folder))
    with running(SERVICE, folder) as process:
        assert processes() == [process.pid]
        process.send_signal(signal.SIGKILL)
        process.wait(60)
        wait_until(lambda: processes() == [])
        assert not socket_path(folder, process.pid).exists()


def test_a_fork_keeps_the_parents_socket_and_gives_the_child_its_own(
    service: "subprocess.Popen[str]", folder: Path
) -> None:
    order(service, "child = os.fork(); child or serve_child()")
    order(service, "open(os.environ['PENSTOCK_RUNTIME_DIR'] + '/child', 'w').write(str(child))")
    child = int((folder / "child").read_text())
    try:
        wait_until(lambda: socket_path(folder, child).exists())
        for pid in (service.pid, child):
            wait_until(lambda pid=pid: asked(socket_path(folder, pid), line_of("about"))["pid"] == pid)  # type: ignore[misc]
    finally:
        os.kill(child, signal.SIGKILL)


def test_a_program_that_replaces_itself_is_attached_to_again(service: "subprocess.Popen[str]", folder: Path) -> None:
    order(
        service,
        "os.execv(sys.executable, [sys.executable, '-c', 'import asyncio, penstock; penstock.run(asyncio.sleep(60))'])",
        waits=False,
    )
    path = socket_path(folder, service.pid)

    def is_new() -> bool:
        try:
            return bool(asked(path, line_of("about", patience_ms=10_000))["loops"][0]["tasks_live"] == 1)
        except (OSError, ValueError):
            return False

    wait_until(is_new)


THREADS = """
import asyncio, sys, threading, penstock

def serve(number):
    penstock.run(asyncio.sleep(60))

threads = [threading.Thread(target=serve, args=(number,), daemon=True) for number in range(8)]
for thread in threads:
    thread.start()
print("ready", flush=True)
sys.stdin.readline()
for _ in range(300):
    penstock.run(asyncio.sleep(0))
print("done", flush=True)
sys.stdin.readline()
"""


def test_many_loops_in_many_threads_are_all_seen_and_closed_ones_are_not(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PENSTOCK_RUNTIME_DIR", str(folder))
    with running(THREADS, folder) as process, AttachedProcess(process.pid, within_s=30) as attached:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        wait_until(lambda: len(attached.ask("about")["loops"]) == 8)
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
        while not attached_is_done(process):
            assert len(attached.ask("snapshot").get("loops", [])) >= 1
        assert len(attached.ask("about")["loops"]) == 8


def attached_is_done(process: "subprocess.Popen[str]") -> bool:
    import select

    assert process.stdout is not None
    ready, _, _ = select.select([process.stdout], [], [], 0.01)
    return bool(ready) and process.stdout.readline() == "done\n"


CLOSED = """
import asyncio, ctypes, sys, penstock

loops = [penstock.new_event_loop() for _ in range(3)]
for loop in loops[:2]:
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
loops[2].run_until_complete(asyncio.sleep(0.5))
loops[2].call_soon(ctypes.PyDLL(None).sleep, 30)
loops[2].run_forever()
"""


@native_only
def test_a_closed_loop_is_in_no_partial_answer(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENSTOCK_RUNTIME_DIR", str(folder))
    with running(CLOSED, folder) as process, AttachedProcess(process.pid, within_s=30) as attached:
        answers: list[dict[str, Any]] = []

        def is_partial() -> bool:
            answers.append(attached.ask("about"))
            return bool(answers[-1]["partial"])

        wait_until(is_partial, every_s=0.05)
        assert [loop["running"] for loop in answers[-1]["loops"]] == [True]


CLOSES_DESCRIPTORS = """
import asyncio, os, sys, time, penstock

loop = penstock.new_event_loop()
while not any(name.endswith("-attach.sock") for name in os.listdir(os.environ["PENSTOCK_RUNTIME_DIR"])):
    time.sleep(0.01)
sys.stdin.readline()
os.closerange(3, 4096)
began_s = time.process_time()
time.sleep(0.5)
print(time.process_time() - began_s, flush=True)
os._exit(0)
"""


def test_a_program_that_closes_every_descriptor_does_not_make_the_server_spin(folder: Path) -> None:
    with running(CLOSES_DESCRIPTORS, folder) as process:
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write("\n")
        process.stdin.flush()
        assert float(process.stdout.readline()) < 0.25
