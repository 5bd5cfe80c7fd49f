"""The control socket of a supervisor, its clients good and bad, and its directory."""

import json
import os
import select
import socket
import stat
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.runtime.supervisor import control, rundir
from penstock.runtime.supervisor.control import (
    MAX_LINE_BYTES,
    MOST_CLIENTS,
    ControlServer,
    PendingAnswer,
    listen_control,
)
from penstock.runtime.supervisor.control_client import ask, supervisors
from penstock.runtime.supervisor.rundir import make_directory

PATIENCE_S = 60.0
PID = 424242


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    made = tmp_path / "run"
    monkeypatch.setenv("PENSTOCK_RUNTIME_DIR", str(made))
    return made


@pytest.fixture
def server(folder: Path) -> Iterator[ControlServer]:
    with closing(ControlServer(echo, listen_control(PID))) as made:
        yield made


def echo(message: Mapping[str, object]) -> dict[str, object]:
    if message["command"] == "raise":
        raise ValueError("no\nsuch thing")
    if message["command"] == "odd":
        return {"ok": True, "odd": {1, 2}, "deep": object}
    return {"ok": True, **message}


def connected(server: ControlServer) -> socket.socket:
    made = socket.socket(socket.AF_UNIX)
    made.settimeout(PATIENCE_S)
    made.connect(server.path)
    return made


def rest(sock: socket.socket) -> bytes:
    """Read to the end of the connection; a reset is an end too."""
    received = b""
    try:
        while data := sock.recv(65536):
            received += data
    except ConnectionError:
        pass
    return received


def question(command: str, **arguments: object) -> bytes:
    return json.dumps({"version": 1, "command": command, **arguments}).encode() + b"\n"


def is_idle(server: ControlServer) -> bool:
    until_s = time.monotonic() + PATIENCE_S
    while server._clients and time.monotonic() < until_s:
        time.sleep(0.01)
    return not server._clients


def test_a_question_is_answered(server: ControlServer) -> None:
    assert supervisors() == [PID]
    assert ask(PID, "scale", count=4) == {"ok": True, "version": 1, "command": "scale", "count": 4}
    path = Path(server.path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_lines_in_one_packet_are_answered_in_order(server: ControlServer) -> None:
    with connected(server) as sock, sock.makefile("rb") as lines:
        sock.sendall(b"".join(question("x", number=number) for number in range(20)))
        assert [json.loads(lines.readline())["number"] for _ in range(20)] == list(range(20))


def test_a_torn_line_is_put_together(server: ControlServer) -> None:
    with connected(server) as sock, sock.makefile("rb") as lines:
        for byte in question("x", number=7):
            sock.sendall(bytes([byte]))
        assert json.loads(lines.readline())["number"] == 7


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"\n", "not a JSON line"),
        (b"{\n", "not a JSON line"),
        (b"\xff\n", "not a JSON line"),
        (b"[" * 60_000 + b"\n", "not a JSON line"),
        (b"9" * 60_000 + b"\n", "not a JSON line"),
        (b"[]\n", "a message is a JSON object"),
        (b"{}\n", "version null is not known here, 1 is"),
        (b'{"version": true, "command": "x"}\n', "version true is not known"),
        (b'{"version": 2, "command": "x"}\n', "version 2 is not known"),
        (b'{"version": 1, "command": 3}\n', "a message has a command"),
        (question("raise"), "ValueError: no such thing"),
        (b"x" * (MAX_LINE_BYTES + 10), "a message has at most"),
    ],
    ids=range(12),
)
def test_a_bad_message_is_answered_by_its_reason(server: ControlServer, line: bytes, reason: str) -> None:
    with connected(server) as sock:
        sock.sendall(line)
        with sock.makefile("rb") as lines:
            answer = json.loads(lines.readline())
    assert answer["ok"] is False and reason in answer["error"], answer
    assert ask(PID, "still") == {"ok": True, "version": 1, "command": "still"}


def test_an_answer_without_a_json_text_is_one_all_the_same(server: ControlServer) -> None:
    answer = ask(PID, "odd")
    assert answer["ok"] is True and answer["odd"] == "{1, 2}"


def test_a_long_answer_arrives_whole(folder: Path) -> None:
    text = "stack\n" * 500_000
    with closing(ControlServer(lambda message: {"ok": True, "stacks": text}, listen_control(PID))):
        assert ask(PID, "stacks")["stacks"] == text


def test_an_answer_that_takes_its_time_keeps_nobody_else(folder: Path) -> None:
    reload = PendingAnswer()

    def answer(message: Mapping[str, object]) -> Mapping[str, object] | PendingAnswer:
        return reload if message["command"] == "reload" else {"ok": True}

    with (
        closing(ControlServer(answer, listen_control(PID))) as server,
        connected(server) as sock,
        sock.makefile("rb") as lines,
    ):
        # the second line waits for the answer to the first
        sock.sendall(question("reload") + question("x"))
        assert ask(PID, "workers") == {"ok": True}
        reload.give({"ok": True, "generation": 2})
        reload.give({"ok": False})
        assert json.loads(lines.readline()) == {"ok": True, "generation": 2}
        assert json.loads(lines.readline()) == {"ok": True}


def test_a_client_that_sends_nothing_is_dropped(server: ControlServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "PATIENCE_S", 0.05)
    with connected(server) as sock:
        sock.sendall(b'{"version"')
        assert rest(sock) == b""
    assert is_idle(server)


def test_a_client_that_does_not_read_is_dropped(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "PATIENCE_S", 0.05)
    with closing(ControlServer(lambda message: {"ok": True, "text": "x" * 4_000_000}, listen_control(PID))) as server:
        with connected(server) as sock:
            sock.sendall(question("stacks"))
            # the buffer of the socket is full by then
            poll = select.poll()
            poll.register(sock, select.POLLIN)
            assert poll.poll(PATIENCE_S * 1000)
            assert is_idle(server)


def test_the_number_of_clients_is_bounded(server: ControlServer) -> None:
    clients = [connected(server) for _ in range(MOST_CLIENTS)]
    with connected(server) as further:
        assert b"more than 16 clients at once" in rest(further)
    for sock in clients:
        sock.sendall(question("x"))
        assert sock.recv(100).startswith(b'{"ok": true')
        sock.close()
    assert is_idle(server)
    assert ask(PID, "again")["ok"]


@settings(max_examples=60)
@given(st.lists(st.binary(max_size=200) | st.just(b"\n") | st.just(question("x")), max_size=12), st.booleans())
def test_fuzzed_messages_leave_a_server_that_answers(fuzzed: "Fuzzed", parts: list[bytes], is_read: bool) -> None:
    fuzzed.try_parts(parts, is_read)


class Fuzzed:
    """A server whose descriptors and threads are counted."""

    def __init__(self, server: ControlServer) -> None:
        self.server = server
        ask(PID, "warm")
        assert is_idle(server)
        self.counts = self.count()

    def count(self) -> tuple[int, int]:
        return len(os.listdir("/proc/self/fd")), threading.active_count()

    def try_parts(self, parts: list[bytes], is_read: bool) -> None:
        with connected(self.server) as sock:
            for part in parts:
                sock.sendall(part)
            if is_read:
                sock.shutdown(socket.SHUT_WR)
                for line in rest(sock).splitlines():
                    assert isinstance(json.loads(line)["ok"], bool)
        assert ask(PID, "still")["ok"]
        assert is_idle(self.server)
        assert self.count() == self.counts


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fuzzed]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PENSTOCK_RUNTIME_DIR", str(tmp_path_factory.mktemp("fuzz") / "run"))
        with closing(ControlServer(echo, listen_control(PID))) as server:
            yield Fuzzed(server)


def test_the_end_leaves_no_descriptor_thread_or_file(folder: Path) -> None:
    before = len(os.listdir("/proc/self/fd")), threading.active_count()
    server = ControlServer(echo, listen_control(PID))
    clients = [connected(server) for _ in range(3)]
    assert ask(PID, "x")["ok"]
    server.close()
    server.close()
    assert [rest(sock) for sock in clients] == [b"", b"", b""]
    for sock in clients:
        sock.close()
    assert list(folder.iterdir()) == []
    assert (len(os.listdir("/proc/self/fd")), threading.active_count()) == before


def test_an_answer_given_after_the_end_does_nothing(folder: Path) -> None:
    late = PendingAnswer()
    with closing(ControlServer(lambda message: late, listen_control(PID))) as server, connected(server) as sock:
        sock.sendall(question("reload"))
        until_s = time.monotonic() + PATIENCE_S
        while late._wake is None and time.monotonic() < until_s:
            time.sleep(0.01)
        server.close()
        late.give({"ok": True})
        assert rest(sock) == b""


def test_a_supervisor_replaced_in_its_process_has_the_path_and_the_old_one_leaves_it(folder: Path) -> None:
    old = ControlServer(lambda message: {"ok": True, "who": "old"}, listen_control(PID))
    with closing(ControlServer(lambda message: {"ok": True, "who": "new"}, listen_control(PID))):
        old.close()
        assert ask(PID, "x")["who"] == "new"
    assert list(folder.iterdir()) == []


def test_files_of_dead_supervisors_go(folder: Path) -> None:
    folder.mkdir(mode=0o700)
    for name in ("77.sock", "78.sock"):
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(str(folder / name))
    (folder / "notes.txt").write_text("kept")
    with closing(ControlServer(echo, listen_control(PID))):
        assert supervisors() == [PID]
        assert sorted(path.name for path in folder.iterdir()) == [f"{PID}.sock", "notes.txt"]


def test_a_question_to_none_is_one_line(folder: Path) -> None:
    with pytest.raises(ProcessLookupError, match=f"process {PID} is no supervisor of this user"):
        ask(PID, "x")


def test_a_supervisor_that_does_not_answer_is_not_waited_for(folder: Path) -> None:
    with closing(ControlServer(lambda message: PendingAnswer(), listen_control(PID))):
        with pytest.raises(TimeoutError, match=f"the supervisor {PID} did not answer in 0.05 s"):
            ask(PID, "x", within_s=0.05)


def refused(folder: Path) -> str:
    with pytest.raises(OSError) as caught:
        ControlServer(echo, listen_control(PID))
    text = caught.value.strerror or str(caught.value)
    assert "\n" not in text and str(folder) in text
    return text


@pytest.mark.parametrize("mode", [0o755, 0o770, 0o701])
def test_a_directory_that_others_can_open_is_refused(folder: Path, mode: int) -> None:
    folder.mkdir()
    folder.chmod(mode)
    assert f"is open to other users (mode {mode:o}, 700 is needed)" in refused(folder)
    # the commands say why they find none
    with pytest.raises(ProcessLookupError, match=rf"no supervisor of this user \({folder} is open to other users"):
        ask(PID, "x")


def test_a_link_in_place_of_the_directory_is_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir(mode=0o700)
    folder.symlink_to(tmp_path / "other")
    assert "is not a directory" in refused(folder)


def test_a_file_in_place_of_the_directory_is_refused(folder: Path) -> None:
    folder.write_text("")
    assert "is not a directory" in refused(folder)


def test_a_path_that_is_too_long_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / ("x" * 107)
    monkeypatch.setenv("PENSTOCK_RUNTIME_DIR", str(folder))
    assert "may have 107 bytes; set PENSTOCK_RUNTIME_DIR" in refused(folder)


@pytest.mark.parametrize("base", ["long", "missing", "open", "relative"])
def test_an_unfit_xdg_directory_falls_back_to_tmp(tmp_path: Path, base: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rundir, "SHARED", str(tmp_path / "user-{}"))
    own = tmp_path / f"user-{os.geteuid()}"
    bases = {"long": tmp_path / ("x" * 107), "missing": tmp_path / "none", "open": tmp_path, "relative": Path("x")}
    if base == "long":
        bases[base].mkdir()
    if base == "open":
        (tmp_path / "penstock").mkdir()
        (tmp_path / "penstock").chmod(0o755)
    assert make_directory({"XDG_RUNTIME_DIR": str(bases[base])}) == own


def test_the_xdg_directory_comes_first(tmp_path: Path) -> None:
    assert make_directory({"XDG_RUNTIME_DIR": str(tmp_path)}) == tmp_path / "penstock"


def test_two_threads_and_a_close_end(folder: Path) -> None:
    server = ControlServer(echo, listen_control(PID))
    found: list[Any] = []

    def ask_on(put: Callable[[Any], None]) -> None:
        while True:
            try:
                put(ask(PID, "x"))
            except OSError as error:
                return put(error)

    threads = [threading.Thread(target=ask_on, args=(found.append,)) for _ in range(2)]
    for thread in threads:
        thread.start()
    while len(found) < 10:
        time.sleep(0.001)
    server.close()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert sum(isinstance(each, OSError) for each in found) == 2
