"""Datagram endpoints: the callbacks, their order, the exceptions and the addresses, on both loops."""

import asyncio
import contextvars
import socket
import sys

import pytest

from .wire import pattern, settle

# asyncio's own endpoint does otherwise: see docs/loop.md.
SENDS_EMPTY = sys.version_info >= (3, 13)
TOO_LARGE = 70_000


class Endpoint(asyncio.DatagramProtocol):
    """Writes down each callback; `then(transport, data)` answers a datagram."""

    def __init__(self, then=None):
        self.events = []
        self.received = []
        self.then = then
        self.transport = None
        self.changed = asyncio.Event()

    def note(self, event):
        self.events.append(event)
        self.changed.set()

    def connection_made(self, transport):
        self.transport = transport
        self.note("made")

    def datagram_received(self, data, addr):
        self.received.append((data, addr))
        self.note(data)
        if self.then is not None:
            self.then(self.transport, data)

    def error_received(self, exc):
        self.note(type(exc))

    def pause_writing(self):
        self.note("pause")

    def resume_writing(self):
        self.note("resume")

    def connection_lost(self, exc):
        self.note(("lost", type(exc)))

    async def until(self, predicate):
        while not predicate():
            self.changed.clear()
            await self.changed.wait()

    async def until_count(self, count):
        await self.until(lambda: len(self.received) >= count)

    async def until_event(self, event):
        await self.until(lambda: event in self.events)

    async def close(self):
        self.transport.close()
        await self.until(lambda: isinstance(self.events[-1], tuple))


LOST = ("lost", type(None))


@pytest.fixture
def peer():
    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        sock.setblocking(False)
        yield sock


async def opened(peer=None, then=None, **kwargs):
    """An endpoint of 127.0.0.1, connected if there is a peer."""
    loop = asyncio.get_running_loop()
    if peer is None:
        kwargs.setdefault("local_addr", ("127.0.0.1", 0))
    else:
        kwargs["remote_addr"] = peer.getsockname()
    _, protocol = await loop.create_datagram_endpoint(lambda: Endpoint(then), **kwargs)
    return protocol


def drained(peer):
    """All that has come to a raw socket, with the addresses."""
    found = []
    while True:
        try:
            found.append(peer.recvfrom(1 << 18))
        except BlockingIOError:
            return found


async def test_an_endpoint_is_one_of_asyncio_and_knows_its_socket_and_names(loop, peer):
    endpoint = await opened(peer)
    transport = endpoint.transport
    assert isinstance(transport, asyncio.BaseTransport)
    assert isinstance(transport, asyncio.DatagramTransport) or sys.version_info < (3, 13)
    sock = transport.get_extra_info("socket")
    assert sock.type == socket.SOCK_DGRAM
    assert transport.get_extra_info("sockname") == sock.getsockname()
    assert transport.get_extra_info("peername") == peer.getsockname()
    assert transport.get_extra_info("nothing", 5) == 5
    assert transport.get_protocol() is endpoint
    assert transport.is_reading() and not transport.is_closing()
    await endpoint.close()
    assert transport.is_closing() and not transport.is_reading()
    assert endpoint.events == ["made", LOST]


async def test_many_datagrams_of_many_peers_arrive_in_order_with_their_addresses(loop):
    endpoint = await opened()
    address = endpoint.transport.get_extra_info("sockname")
    peers = [socket.socket(type=socket.SOCK_DGRAM) for _ in range(100)]
    try:
        sent = []
        for round_number in range(3):
            for number, one in enumerate(peers):
                one.bind(("127.0.0.1", 0)) if round_number == 0 else None
                one.sendto(b"%d %d" % (number, round_number), address)
                sent.append((b"%d %d" % (number, round_number), one.getsockname()))
            await endpoint.until_count(len(sent))
        assert endpoint.received == sent
    finally:
        for one in peers:
            one.close()
    await endpoint.close()


@pytest.mark.parametrize("size", [0, 1, 511, 512, 1472, 9000, 65_507])
async def test_datagrams_of_any_size_go_and_come_back_whole(loop, peer, size):
    endpoint = await opened(peer, then=lambda transport, data: transport.sendto(data))
    peer.sendto(pattern(size), endpoint.transport.get_extra_info("sockname"))
    await endpoint.until_count(1)
    await settle()
    if size or SENDS_EMPTY:
        assert drained(peer) == [(pattern(size), endpoint.transport.get_extra_info("sockname"))]
    else:
        assert drained(peer) == []
    await endpoint.close()


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
async def test_a_buffer_may_be_reused_once_it_is_sent(loop, peer, kind):
    endpoint = await opened()
    for number in range(5):
        source = bytearray(b"datagram %d" % number)
        endpoint.transport.sendto(kind(source), peer.getsockname())
        source[:8] = bytes(8)
    await settle()
    expected = [b"datagram %d" % number for number in range(5)]
    if kind is memoryview:
        expected = [data for data, _ in drained(peer)]
        assert [data[-1:] for data in expected] == [b"0", b"1", b"2", b"3", b"4"]
    else:
        assert [data for data, _ in drained(peer)] == expected
    await endpoint.close()


@pytest.mark.parametrize("count", [1, 2, 63, 64, 65, 200])
async def test_all_that_one_callback_sends_arrives_in_order(loop, peer, count):
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
    endpoint = await opened()
    for number in range(count):
        endpoint.transport.sendto(b"%d" % number, peer.getsockname())
    await settle()
    assert [data for data, _ in drained(peer)] == [b"%d" % number for number in range(count)]
    assert endpoint.transport.get_write_buffer_size() == 0
    await endpoint.close()


@pytest.mark.parametrize("end", ["close", "abort"])
async def test_what_was_sent_before_the_end_arrives(loop, peer, end):
    endpoint = await opened(peer)
    for number in range(5):
        endpoint.transport.sendto(b"%d" % number)
    getattr(endpoint.transport, end)()
    await endpoint.until_event(LOST)
    assert [data for data, _ in drained(peer)] == [b"0", b"1", b"2", b"3", b"4"]


async def test_sent_datagrams_come_before_what_the_socket_itself_sends(loop, peer):
    endpoint = await opened(peer)
    for number in range(3):
        endpoint.transport.sendto(b"%d" % number)
    with endpoint.transport.get_extra_info("socket").dup() as sock:
        sock.send(b"last")
    assert [data for data, _ in drained(peer)] == [b"0", b"1", b"2", b"last"]
    await endpoint.close()


async def test_wrong_arguments_raise_what_asyncio_raises(loop, peer):
    endpoint = await opened(peer)
    with pytest.raises(TypeError, match="data argument must be a bytes-like object, not 'str'"):
        endpoint.transport.sendto("text")
    with pytest.raises(ValueError, match=r"Invalid address: must be None or \('127.0.0.1', "):
        endpoint.transport.sendto(b"data", ("127.0.0.1", 1))
    endpoint.transport.sendto(b"data", peer.getsockname())
    with pytest.raises(ValueError, match=r"high \(1\) must be >= low \(2\) must be >= 0"):
        endpoint.transport.set_write_buffer_limits(1, 2)
    endpoint.transport.set_write_buffer_limits(high=100)
    assert endpoint.transport.get_write_buffer_limits() == (25, 100)
    assert [data for data, _ in drained(peer)] == [b"data"]
    await endpoint.close()


@pytest.mark.parametrize(
    "arguments", [(b"data",), (b"data", 5), (b"data", ("127.0.0.1",)), (b"data", ("127.0.0.1", "x"))]
)
async def test_a_datagram_without_a_usable_address_ends_the_endpoint(loop, problems, arguments):
    endpoint = await opened()
    endpoint.transport.sendto(*arguments)
    await endpoint.until_event(("lost", TypeError))
    assert [context["message"] for context in problems] == ["Fatal write error on datagram transport"]
    assert problems[0]["transport"] is endpoint.transport


async def test_a_port_out_of_range_ends_the_endpoint(loop, problems, peer):
    endpoint = await opened()
    endpoint.transport.sendto(b"data", ("127.0.0.1", 65_536))
    await endpoint.until_event(("lost", OverflowError))
    assert [context["message"] for context in problems] == ["Fatal write error on datagram transport"]


async def test_a_host_that_is_no_number_is_looked_up(loop, peer):
    endpoint = await opened()
    for _ in range(2):
        endpoint.transport.sendto(b"data", ("localhost", peer.getsockname()[1]))
    endpoint.transport.sendto(b"last", peer.getsockname())
    await settle()
    assert [data for data, _ in drained(peer)] == [b"data", b"data", b"last"]
    await endpoint.close()


async def test_an_error_of_sending_is_received_in_the_call(loop, peer):
    endpoint = await opened(peer)
    endpoint.transport.sendto(bytes(TOO_LARGE))
    assert endpoint.events == ["made", OSError]
    endpoint.transport.sendto(b"data")
    await settle()
    assert [data for data, _ in drained(peer)] == [b"data"]
    await endpoint.close()
    assert endpoint.events == ["made", OSError, LOST]


async def test_what_error_received_raises_leaves_the_call(loop, peer):
    endpoint = await opened(peer)

    def fail(exc):
        raise ZeroDivisionError

    endpoint.error_received = fail
    with pytest.raises(ZeroDivisionError):
        endpoint.transport.sendto(bytes(TOO_LARGE))
    await endpoint.close()


async def test_a_peer_that_is_gone_is_an_error_and_the_endpoint_goes_on(loop, peer):
    address = peer.getsockname()
    endpoint = await opened(peer)
    peer.close()
    endpoint.transport.sendto(b"anyone?")
    await endpoint.until_event(ConnectionRefusedError)
    with socket.socket(type=socket.SOCK_DGRAM) as again:
        again.bind(address)
        again.setblocking(False)
        endpoint.transport.sendto(b"now?")
        again.sendto(b"yes", endpoint.transport.get_extra_info("sockname"))
        await endpoint.until_count(1)
        assert endpoint.received == [(b"yes", address)]
    await endpoint.close()


@pytest.mark.parametrize("end", ["close", "abort"])
async def test_nothing_is_delivered_after_the_end(loop, peer, end):
    endpoint = await opened(then=lambda transport, data: getattr(transport, end)())
    for number in range(10):
        peer.sendto(b"%d" % number, endpoint.transport.get_extra_info("sockname"))
    await endpoint.until_event(LOST)
    await settle()
    assert endpoint.events == ["made", b"0", LOST]


async def test_a_paused_endpoint_delivers_the_rest_after_resume(loop, peer):
    endpoint = await opened(then=lambda transport, data: transport.pause_reading() if data == b"2" else None)
    address = endpoint.transport.get_extra_info("sockname")
    for number in range(6):
        peer.sendto(b"%d" % number, address)
    await endpoint.until_count(3)
    await settle(10)
    assert endpoint.events == ["made", b"0", b"1", b"2"]
    assert not endpoint.transport.is_reading()
    peer.sendto(b"6", address)
    endpoint.transport.resume_reading()
    await endpoint.until_count(7)
    assert endpoint.events[1:] == [b"%d" % number for number in range(7)]
    await endpoint.close()


async def test_an_endpoint_closed_while_paused_delivers_nothing_more(loop, peer):
    endpoint = await opened(then=lambda transport, data: transport.pause_reading())
    for number in range(6):
        peer.sendto(b"%d" % number, endpoint.transport.get_extra_info("sockname"))
    await endpoint.until_count(1)
    await endpoint.close()
    assert endpoint.events == ["made", b"0", LOST]


async def test_an_exception_of_the_protocol_is_reported_and_the_next_datagram_comes(loop, peer, problems):
    def fail(transport, data):
        raise ZeroDivisionError(data)

    endpoint = await opened(then=fail)
    for number in range(3):
        peer.sendto(b"%d" % number, endpoint.transport.get_extra_info("sockname"))
    await endpoint.until_count(3)
    await settle()
    assert [context["exception"].args for context in problems] == [(b"0",), (b"1",), (b"2",)]
    assert not endpoint.transport.is_closing()
    await endpoint.close()


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_what_must_leave_the_loop_loses_no_datagram(loop, run, peer, kind):
    def leave(transport, data):
        if data == b"1":
            raise kind

    endpoint = run(opened(then=leave))
    for number in range(4):
        peer.sendto(b"%d" % number, endpoint.transport.get_extra_info("sockname"))
    with pytest.raises(kind):
        run(endpoint.until_count(4))
    assert endpoint.events == ["made", b"0", b"1"]
    run(endpoint.until_count(4))
    assert endpoint.events == ["made", b"0", b"1", b"2", b"3"]
    run(endpoint.close())


def test_an_endpoint_sends_while_its_loop_stands_still(loop, run, peer):
    endpoint = run(opened(peer))
    for number in range(3):
        endpoint.transport.sendto(b"%d" % number)
    assert [data for data, _ in drained(peer)] == [b"0", b"1", b"2"]
    run(endpoint.close())


async def test_another_thread_that_sends_is_not_kept_waiting(loop, peer):
    """No contract of asyncio's has it, but programs do so, and there it works."""
    endpoint = await opened(peer)

    def send():
        for number in range(3):
            endpoint.transport.sendto(b"%d" % number)
        return [data for data, _ in drained(peer)]

    assert await loop.run_in_executor(None, send) == [b"0", b"1", b"2"]
    await endpoint.close()


async def test_callbacks_run_in_the_context_of_the_endpoints_making(loop, peer):
    variable = contextvars.ContextVar("variable", default="none")
    seen = []
    variable.set("made")
    endpoint = await opened(then=lambda transport, data: seen.append(variable.get()))
    variable.set("later")
    for _ in range(2):
        peer.sendto(b"data", endpoint.transport.get_extra_info("sockname"))
    await endpoint.until_count(2)
    assert seen == ["made", "made"]
    await endpoint.close()


def flooded(transport, size=1000):
    """Send until the kernel takes no more. Return how many were sent."""
    count = 0
    while transport.get_write_buffer_size() == 0 and count < 10_000:
        transport.sendto(b"%09d" % count + bytes(size - 9))
        count += 1
    return count


async def unix_pair(tmp_path, then=None):
    """A connected endpoint, and its peer, whose queue holds few datagrams."""
    peer = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    peer.bind(str(tmp_path / "peer"))
    peer.setblocking(False)
    loop = asyncio.get_running_loop()
    _, endpoint = await loop.create_datagram_endpoint(
        lambda: Endpoint(then),
        local_addr=str(tmp_path / "own"),
        remote_addr=str(tmp_path / "peer"),
        family=socket.AF_UNIX,
    )
    return endpoint, peer


async def test_a_full_receiver_pauses_the_protocol_until_it_has_room(loop, tmp_path):
    endpoint, peer = await unix_pair(tmp_path)
    with peer:
        transport = endpoint.transport
        transport.set_write_buffer_limits(high=5000, low=1000)
        count = flooded(transport)
        for _ in range(10):
            transport.sendto(b"%09d" % count + bytes(991))
            count += 1
        assert endpoint.events == ["made", "pause"]
        header = 8 if SENDS_EMPTY else 0
        assert transport.get_write_buffer_size() == 11 * (1000 + header)
        received = []
        while len(received) < count:
            received += drained(peer)
            await asyncio.sleep(0)
        assert [int(data[:9]) for data, _ in received] == list(range(count))
        await endpoint.until_event("resume")
        await endpoint.close()
    assert endpoint.events == ["made", "pause", "resume", LOST]


async def test_a_closed_endpoint_is_lost_when_its_queue_is_sent(loop, tmp_path):
    endpoint, peer = await unix_pair(tmp_path)
    with peer:
        count = flooded(endpoint.transport)
        endpoint.transport.close()
        await settle(10)
        assert endpoint.events == ["made"]
        received = []
        while len(received) < count:
            received += drained(peer)
            await asyncio.sleep(0)
        await endpoint.until_event(LOST)


async def test_an_aborted_endpoint_drops_its_queue(loop, tmp_path):
    endpoint, peer = await unix_pair(tmp_path)
    with peer:
        count = flooded(endpoint.transport)
        endpoint.transport.abort()
        await endpoint.until_event(LOST)
        assert len(drained(peer)) == count - 1


async def test_a_full_unix_receiver_that_is_not_connected_gets_all(loop, tmp_path):
    """The kernel reports no room there: asyncio tries in every turn, penstock by a timer."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as peer:
        peer.bind(str(tmp_path / "peer"))
        peer.setblocking(False)
        _, endpoint = await loop.create_datagram_endpoint(
            Endpoint, local_addr=str(tmp_path / "own"), family=socket.AF_UNIX
        )
        for number in range(100):
            endpoint.transport.sendto(b"%d" % number, str(tmp_path / "peer"))
        received = []
        while len(received) < 100:
            received += drained(peer)
            await asyncio.sleep(0.0005)
        assert received == [(b"%d" % number, str(tmp_path / "own")) for number in range(100)]
        await endpoint.close()
