"""The native attach server: its connections, the hand-over to Python, and the answer without the GIL."""

import gc
import json
import os
import random
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.loop import NATIVE
from tests.support.waiting import wait_until

if not NATIVE:
    pytest.skip("without native code there is no native attach server", allow_module_level=True)

from penstock._core.monitor.attach import AttachServer
from penstock._core.tasks.heartbeat import Heartbeat

ASK = b'{"version":1,"command":"about"}\n'


class Served:
    """A server over a socket, with the thread that serves it. Python answers in the test's own thread."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(self.path)
        self.listener.listen(64)
        self.listener.setblocking(False)
        self.server = AttachServer(self.listener)
        self.thread = threading.Thread(target=self.server.serve)
        self.thread.start()

    def connect(self) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(20)
        sock.connect(self.path)
        return sock

    def answer(self, text: bytes = b'{"ok":true}\n') -> bytes:
        """Answer the next line, and return it."""
        taken = self.server.take(20_000)
        assert taken is not None
        number, line = taken
        self.server.give(number, text)
        return line

    def close(self) -> None:
        self.server.stop()
        self.thread.join()
        self.server.close_all()
        self.listener.close()


@contextmanager
def serving() -> Iterator[Served]:
    with TemporaryDirectory(dir="/tmp") as folder:
        made = Served(Path(folder, "s"))
        try:
            yield made
        finally:
            made.close()


@pytest.fixture
def served() -> Iterator[Served]:
    with serving() as made:
        yield made


def received(sock: socket.socket) -> bytes:
    data = b""
    while not data.endswith(b"\n"):
        more = sock.recv(65536)
        if not more:
            break
        data += more
    return data


def patient(milliseconds: int = 10_000) -> bytes:
    """Return a line whose client waits so long for Python."""
    return b'{"version":1,"command":"about","patience_ms":%d}\n' % milliseconds


def test_a_line_is_taken_once_and_its_answer_sent(served: Served) -> None:
    with served.connect() as sock:
        sock.sendall(patient())
        assert served.answer(b'{"ok":true,"n":1}\n') == patient()[:-1]
        assert received(sock) == b'{"ok":true,"n":1}\n'
        assert served.server.take(0) is None


def test_a_client_whose_patience_ends_is_answered_without_python(served: Served) -> None:
    heartbeat = Heartbeat()
    heartbeat.enter()
    served.server.follow(heartbeat, 'loop "1"')
    heartbeat.begin_turn()
    heartbeat.begin_callback(None)
    with served.connect() as sock:
        sock.sendall(ASK)
        found = json.loads(received(sock))
        number, line = served.server.take(20_000) or (0, b"")
    assert (found["partial"], found["pid"], number, line) == (True, os.getpid(), 0, b"")
    assert [loop["name"] for loop in found["loops"]] == ['loop "1"']
    assert {thread["native_id"] for thread in found["threads"]} >= {threading.main_thread().native_id}
    heartbeat.end_callback()
    heartbeat.end_turn()


def test_an_answer_that_comes_too_late_is_given_to_no_client(served: Served) -> None:
    with served.connect() as sock:
        sock.sendall(patient(200))
        number, _ = served.server.take(20_000) or (0, b"")
        assert json.loads(received(sock))["partial"]
        assert not served.server.give(number, b'{"late":1}\n')
        sock.sendall(patient())
        served.answer(b'{"second":1}\n')
        assert received(sock) == b'{"second":1}\n'


def test_a_held_request_waits_for_its_answer_however_long(served: Served) -> None:
    with served.connect() as sock, served.connect() as other:
        sock.sendall(patient(50))
        number, _ = served.server.take(20_000) or (0, b"")
        assert served.server.hold(number)
        other.sendall(patient(50))
        assert json.loads(received(other))["partial"]
        assert served.server.is_open(number)
        served.server.give(number, b'{"ok":true}\n')
        assert received(sock) == b'{"ok":true}\n'


def test_a_gone_clients_request_is_closed(served: Served) -> None:
    sock = served.connect()
    sock.sendall(patient())
    number, _ = served.server.take(20_000) or (0, b"")
    served.server.hold(number)
    sock.close()
    wait_until(lambda: not served.server.is_open(number))
    assert not served.server.give(number, b"x\n")
    assert served.server.client_count == 0


def test_a_loop_is_followed_until_it_is_not(served: Served) -> None:
    beats = [Heartbeat() for _ in range(100)]
    for at, heartbeat in enumerate(beats):
        served.server.follow(heartbeat, f"loop-{at}" * 20)
        served.server.follow(heartbeat, "again")
    assert served.server.loop_count == 100
    for heartbeat in beats[::2]:
        served.server.unfollow(heartbeat)
        served.server.unfollow(heartbeat)
    with served.connect() as sock:
        sock.sendall(ASK)
        found = json.loads(received(sock))
    # at most 64 are shown, and names are cut
    assert len(found["loops"]) == 50 and all(len(loop["name"]) < 64 for loop in found["loops"])


def test_loops_come_and_go_while_they_are_looked_at(served: Served) -> None:
    is_done = threading.Event()

    def churn() -> None:
        while not is_done.is_set():
            beats = [Heartbeat() for _ in range(8)]
            for heartbeat in beats:
                served.server.follow(heartbeat, "x")
            for heartbeat in beats:
                served.server.unfollow(heartbeat)

    thread = threading.Thread(target=churn)
    thread.start()
    try:
        with served.connect() as sock:
            for _ in range(20):
                sock.sendall(b'{"version":1,"command":"stacks","patience_ms":0}\n')
                assert b'"ok":true' in received(sock)
    finally:
        is_done.set()
        thread.join()
    assert served.server.loop_count == 0


def test_a_server_serves_again_after_a_stop(served: Served) -> None:
    sock = served.connect()
    sock.sendall(patient())
    number, _ = served.server.take(20_000) or (0, b"")
    served.server.stop()
    served.thread.join()
    assert served.server.take(0) is None
    served.server.resume()
    served.thread = threading.Thread(target=served.server.serve)
    served.thread.start()
    # the line that was taken is taken again: its first taker may be gone
    assert served.server.take(20_000) == (number, patient()[:-1])
    served.server.give(number, b'{"ok":true}\n')
    assert received(sock) == b'{"ok":true}\n'
    sock.close()


def test_a_large_answer_is_sent_whole_and_freed(served: Served) -> None:
    text = b'"' + b"x" * 8_000_000 + b'"\n'
    with served.connect() as sock:
        sock.sendall(patient())
        served.answer(text)
        assert received(sock) == text


def test_a_line_that_never_ends_is_refused(served: Served) -> None:
    with served.connect() as sock, suppress(BrokenPipeError, ConnectionResetError):
        sock.sendall(b"x" * 200_000)
        assert b"at most 65536 bytes" in received(sock)
    wait_until(lambda: served.server.client_count == 0)


def test_descriptors_are_given_back() -> None:
    gc.collect()
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        with serving() as made, made.connect() as sock:
            sock.sendall(ASK)
            assert json.loads(received(sock))["partial"]
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) == before


def chatter(served: Served, script: list[Any]) -> None:
    """Send the pieces of a script over several connections, and answer what is asked meanwhile."""
    clients: dict[int, socket.socket] = {}
    for at, piece in script:
        sock = clients.get(at)
        if sock is None:
            sock = clients[at] = served.connect()
            sock.settimeout(0.5)
        if piece is None:
            clients.pop(at).close()
            continue
        with suppress(OSError):
            sock.sendall(piece)
        taken = served.server.take(0)
        if taken is not None:
            served.server.give(taken[0], b'{"ok":true}\n' * (1 + len(taken[1]) % 3))
    for sock in clients.values():
        sock.close()


PIECES = st.one_of(
    st.none(),
    st.binary(max_size=64),
    st.sampled_from([ASK, ASK[:10], ASK * 3, b"\n", b"\n" * 100, b"\0\n", b'{"patience_ms":0}\n', b"x" * 70_000]),
    st.builds(lambda text: json.dumps({"version": 1, "command": text}).encode() + b"\n", st.text(max_size=20)),
)


@settings(max_examples=100)
@given(st.lists(st.tuples(st.integers(0, 4), PIECES), max_size=40))
def test_no_sequence_of_bytes_and_ends_breaks_the_server(script: list[Any]) -> None:
    with serving() as served:
        chatter(served, script)
        with served.connect() as sock:
            sock.sendall(ASK)
            assert received(sock).startswith(b'{"ok":true')


def test_many_clients_in_threads_get_their_own_answers(served: Served) -> None:
    def ask(number: int) -> None:
        chosen = random.Random(number)
        with served.connect() as sock:
            for _ in range(50):
                text = b'{"version":1,"command":"%d","patience_ms":10000}\n' % chosen.randrange(10**9)
                sock.sendall(text)
                if received(sock) != text:
                    wrong.append(number)

    wrong: list[int] = []
    threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for _ in range(8 * 50):
        number, line = served.server.take(20_000) or (0, b"")
        served.server.give(number, line + b"\n")
    for thread in threads:
        thread.join()
    assert wrong == []
