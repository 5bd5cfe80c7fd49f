"""add_reader and add_writer: asyncio's level-triggered contract, whatever the poller does underneath."""

import asyncio
import os
import socket

import pytest

from .wire import socket_pair


@pytest.fixture
def pair():
    one, other = socket_pair("unix")
    yield one, other
    one.close()
    other.close()


def until_stopped(loop):
    guard = loop.call_later(10, pytest.fail, "nothing stopped the loop")
    loop.run_forever()
    guard.cancel()


def test_a_reader_is_called_when_data_arrives(loop, pair):
    one, other = pair
    got = []
    loop.add_reader(one, lambda: (got.append(one.recv(10)), loop.stop()))
    other.send(b"data")
    until_stopped(loop)
    loop.remove_reader(one)
    assert got == [b"data"]


def test_a_reader_that_does_not_read_is_called_again(loop, pair):
    one, other = pair
    calls = []

    def look():
        calls.append(1)
        if len(calls) == 5:
            loop.stop()

    loop.add_reader(one, look)
    other.send(b"x")
    until_stopped(loop)
    assert len(calls) == 5
    loop.remove_reader(one)


def test_a_reader_that_reads_a_part_is_called_for_the_rest(loop, pair):
    one, other = pair
    got = []

    def read_one():
        got.append(one.recv(1))
        if len(got) == 4:
            loop.stop()

    loop.add_reader(one, read_one)
    other.send(b"abcd")
    until_stopped(loop)
    assert got == [b"a", b"b", b"c", b"d"]
    loop.remove_reader(one)


def test_a_reader_added_after_the_data_came_is_called(loop, pair):
    one, other = pair
    other.send(b"early")
    loop.call_soon(lambda: loop.add_reader(one, loop.stop))
    until_stopped(loop)
    loop.remove_reader(one)


def test_a_reader_sees_the_end_of_the_stream(loop, pair):
    one, other = pair
    got = []
    loop.add_reader(one, lambda: (got.append(one.recv(10)), loop.stop()))
    other.close()
    until_stopped(loop)
    assert got == [b""]
    loop.remove_reader(one)


def test_a_writer_is_called_as_long_as_there_is_room(loop, pair):
    one, _ = pair
    calls = []

    def look():
        calls.append(1)
        if len(calls) == 5:
            loop.stop()

    loop.add_writer(one, look)
    until_stopped(loop)
    assert len(calls) == 5
    loop.remove_writer(one)


def fill(sock):
    sent = 0
    while True:
        try:
            sent += sock.send(b"x" * 65536)
        except BlockingIOError:
            return sent


def test_a_writer_waits_until_there_is_room(loop, pair, turn):
    one, other = pair
    fill(one)
    calls = []
    loop.add_writer(one, lambda: (calls.append(1), loop.stop()))
    turn()
    turn()
    assert calls == []
    while True:
        try:
            other.recv(1 << 20)
        except BlockingIOError:
            break
    until_stopped(loop)
    assert calls
    loop.remove_writer(one)


def test_a_reader_and_a_writer_of_one_fd_are_independent(loop, pair):
    one, other = pair
    calls = []
    loop.add_reader(one, lambda: (calls.append("read"), loop.stop()))
    loop.add_writer(one, lambda: (calls.append("write"), loop.remove_writer(one)))
    loop.call_later(0.01, other.send, b"x")
    until_stopped(loop)
    assert calls == ["write", "read"]
    assert loop.remove_reader(one) is True
    assert loop.remove_writer(one) is False


def test_adding_again_replaces_the_callback(loop, pair):
    one, other = pair
    calls = []
    loop.add_reader(one, calls.append, "old")
    loop.add_reader(one, lambda: (calls.append("new"), loop.stop()))
    other.send(b"x")
    until_stopped(loop)
    assert calls == ["new"]
    loop.remove_reader(one)


def test_a_removed_reader_is_not_called(loop, pair, turn):
    one, other = pair
    loop.add_reader(one, pytest.fail, "removed")
    other.send(b"x")
    assert loop.remove_reader(one) is True
    assert loop.remove_reader(one) is False
    turn()
    turn()


def test_a_reader_can_remove_itself(loop, pair, turn):
    one, other = pair
    calls = []
    loop.add_reader(one, lambda: (calls.append(1), loop.remove_reader(one)))
    other.send(b"x")
    for _ in range(5):
        turn()
    assert calls == [1]


def test_a_reader_can_remove_another_that_is_ready_in_the_same_turn(loop, turn):
    pairs = [socket_pair("unix") for _ in range(2)]
    calls = []

    def read(index):
        calls.append(index)
        for one, _ in pairs:
            loop.remove_reader(one)

    for index, (one, other) in enumerate(pairs):
        loop.add_reader(one, read, index)
        other.send(b"x")
    for _ in range(5):
        turn()
    assert len(calls) == 1
    for one, other in pairs:
        one.close()
        other.close()


def test_a_reader_can_be_added_again_after_it_was_removed(loop, pair):
    one, other = pair
    other.send(b"x")
    for _ in range(3):
        loop.add_reader(one, loop.stop)
        until_stopped(loop)
        loop.remove_reader(one)


def test_an_fd_closed_and_reused_gets_only_its_new_events(loop):
    for _ in range(5):
        one, other = socket_pair("unix")
        loop.add_reader(one, loop.stop)
        other.send(b"x")
        until_stopped(loop)
        loop.remove_reader(one)
        one.close()
        other.close()


def test_an_fd_closed_without_remove_and_reused_still_works(loop):
    one, other = socket_pair("unix")
    number = one.fileno()
    loop.add_reader(number, pytest.fail, "closed")
    one.close()
    loop.remove_reader(number)
    again, peer = socket_pair("unix")
    os.dup2(again.fileno(), number)
    try:
        loop.add_reader(number, loop.stop)
        peer.send(b"x")
        until_stopped(loop)
        loop.remove_reader(number)
    finally:
        for sock in (other, again, peer):
            sock.close()
        if again.fileno() != number:
            try:
                os.close(number)
            except OSError:
                pass


def test_a_reader_takes_a_number_or_an_object_with_fileno(loop, pair):
    one, other = pair
    loop.add_reader(one.fileno(), pytest.fail, "replaced")
    loop.add_reader(one, loop.stop)
    other.send(b"x")
    until_stopped(loop)
    assert loop.remove_reader(one.fileno()) is True


@pytest.mark.parametrize("thing", ["text", None, object(), 1.5])
def test_what_has_no_fileno_is_refused(loop, thing):
    with pytest.raises(ValueError):
        loop.add_reader(thing, int)


class Odd:
    """An object with a `fileno()` of any kind."""

    def __init__(self, number):
        self.number = number

    def __repr__(self):
        return f"Odd({self.number!r})"

    def fileno(self):
        return self.number


@pytest.mark.parametrize("thing", [-1, -(2**40), Odd(-1), Odd("text"), Odd(None)], ids=repr)
@pytest.mark.parametrize("method", ["add_reader", "add_writer", "remove_reader", "remove_writer"])
def test_what_is_no_descriptor_is_a_value_error(loop, method, thing):
    with pytest.raises(ValueError, match="Invalid file"):
        getattr(loop, method)(thing, *([int] if method.startswith("add") else []))


@pytest.mark.parametrize("number", [2**31, 2**40, 2**70])
def test_a_number_beyond_any_descriptor_is_watched_by_nothing(loop, number):
    for thing in (number, Odd(number)):
        assert loop.remove_reader(thing) is False
        assert loop.remove_writer(thing) is False
        with pytest.raises(OverflowError):
            loop.add_reader(thing, int)
        with pytest.raises(OverflowError):
            loop.add_writer(thing, int)


def test_true_is_the_descriptor_one(loop):
    assert loop.remove_reader(True) is False


def test_a_regular_file_is_refused_as_epoll_does(loop, tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"data")
    with path.open("rb") as file, pytest.raises(PermissionError):
        loop.add_reader(file, int)


def test_a_closed_fd_is_refused(loop):
    one, other = socket_pair("unix")
    number = one.fileno()
    one.close()
    with pytest.raises(OSError):
        loop.add_reader(number, int)
    other.close()


def test_a_reader_that_raises_is_reported_and_stays(loop, pair, problems):
    one, other = pair

    def broken():
        if len(problems) == 2:
            loop.stop()
        raise LookupError("reader")

    loop.add_reader(one, broken)
    other.send(b"x")
    until_stopped(loop)
    assert {type(context["exception"]) for context in problems} == {LookupError}
    assert loop.remove_reader(one) is True


def test_a_pipe_can_be_watched(loop):
    read_end, write_end = os.pipe()
    os.set_blocking(read_end, False)
    got = []
    loop.add_reader(read_end, lambda: (got.append(os.read(read_end, 10)), loop.stop()))
    os.write(write_end, b"data")
    until_stopped(loop)
    loop.remove_reader(read_end)
    os.close(read_end)
    os.close(write_end)
    assert got == [b"data"]


def test_a_listening_socket_can_be_watched(loop):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        loop.add_reader(listener, loop.stop)
        with socket.create_connection(listener.getsockname()):
            until_stopped(loop)
        loop.remove_reader(listener)


def test_a_failed_connect_makes_the_fd_writable(loop):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = listener.getsockname()
    with socket.socket() as sock:
        sock.setblocking(False)
        sock.connect_ex(address)
        loop.add_writer(sock, loop.stop)
        until_stopped(loop)
        loop.remove_writer(sock)
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) != 0


async def test_an_fd_used_by_a_transport_is_refused(loop):
    ours, peer = socket_pair()
    transport, _ = await loop.connect_accepted_socket(asyncio.Protocol, ours)
    number = transport.get_extra_info("socket").fileno()
    for refused in (
        lambda: loop.add_reader(number, int),
        lambda: loop.add_writer(number, int),
        lambda: loop.remove_reader(number),
        lambda: loop.remove_writer(number),
    ):
        with pytest.raises(RuntimeError, match="is used by transport"):
            refused()
    with pytest.raises(RuntimeError, match="is used by transport"):
        await loop.sock_recv(ours, 1)
    transport.abort()
    await asyncio.sleep(0)
    peer.close()


def test_watchers_see_events_of_a_socket_whose_duplicate_is_watched_too(loop, pair):
    one, other = pair
    twin = one.dup()
    calls = []

    def note(name, sock):
        calls.append(name)
        loop.remove_reader(sock)
        if len(calls) == 2:
            loop.stop()

    loop.add_reader(one, note, "one", one)
    loop.add_reader(twin, note, "twin", twin)
    other.send(b"x")
    until_stopped(loop)
    assert sorted(calls) == ["one", "twin"]
    twin.close()


def test_readers_are_not_starved_by_an_endless_chain_of_callbacks(loop, pair):
    one, other = pair
    turns = []

    def chain():
        turns.append(1)
        if len(turns) > 100_000:
            pytest.fail("the reader was starved")
        loop.call_soon(chain)

    loop.add_reader(one, loop.stop)
    loop.call_soon(chain)
    loop.call_soon(other.send, b"x")
    until_stopped(loop)
    assert len(turns) <= 100_000
    loop.remove_reader(one)


def test_timers_are_not_starved_by_an_endless_chain_of_callbacks(loop):
    def chain():
        loop.call_soon(chain)

    loop.call_soon(chain)
    loop.call_later(0.01, loop.stop)
    until_stopped(loop)


@pytest.mark.parametrize("side", ["reader", "writer"])
def test_a_file_that_was_closed_can_still_be_removed(loop, side):
    add, remove = getattr(loop, f"add_{side}"), getattr(loop, f"remove_{side}")
    left, right = socket.socketpair()
    with left, right:
        add(left, int)
        left.close()
        assert remove(left)
        for closed in (left, None):
            with pytest.raises(ValueError):
                remove(closed)
