"""Native transports: the write queue in order, addresses as the socket module's, descriptors used anew."""

import asyncio
import os
import socket
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.loop import EventLoop

SIZES = st.lists(st.lists(st.integers(0, 9000), min_size=1, max_size=12), max_size=12)


@settings(derandomize=True, deadline=None, max_examples=40, database=None)
@given(SIZES)
def test_the_peer_reads_everything_in_order(batches: list[list[int]]) -> None:
    ours, theirs = socket.socketpair()
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2048)
    chunks = [[os.urandom(size) for size in sizes] for sizes in batches]

    async def exchange() -> bytes:
        reader, peer = await asyncio.open_connection(sock=theirs)
        _, writer = await asyncio.open_connection(sock=ours)
        for batch in chunks:
            writer.write(batch[0]) if len(batch) == 1 else writer.writelines(batch)
        writer.close()
        received = await reader.read()
        peer.close()
        await peer.wait_closed()
        return received

    loop = EventLoop()
    try:
        assert loop.run_until_complete(exchange()) == b"".join(chunk for batch in chunks for chunk in batch)
    finally:
        loop.close()


@pytest.mark.parametrize("kind", ["ipv4", "ipv6", "path", "abstract", "unnamed"])
def test_addresses_are_the_socket_modules(loop, kind: str, tmp_path: Path) -> None:
    if kind == "unnamed":
        client, accepted = socket.socketpair()
    else:
        family = {"ipv4": socket.AF_INET, "ipv6": socket.AF_INET6}.get(kind, socket.AF_UNIX)
        where = {"ipv4": ("127.0.0.1", 0), "ipv6": ("::1", 0), "path": str(tmp_path / "s")}
        with socket.socket(family) as listener:
            try:
                listener.bind(where.get(kind, f"\0penstock-{os.getpid()}"))
            except OSError:
                pytest.skip(f"no {kind} on this machine")
            listener.listen()
            client = socket.create_connection(listener.getsockname()[:2]) if kind[:2] == "ip" else socket.socket(family)
            if kind[:2] != "ip":
                client.connect(listener.getsockname())
            accepted, _ = listener.accept()
    client.setblocking(False)
    expected = client.getsockname(), client.getpeername()

    async def told() -> tuple[object, object]:
        _, writer = await asyncio.open_connection(sock=client)
        found = writer.get_extra_info("sockname"), writer.get_extra_info("peername")
        writer.close()
        await writer.wait_closed()
        return found

    assert loop.run_until_complete(told()) == expected
    accepted.close()


def test_a_descriptor_closed_behind_our_back_and_used_anew_gets_its_own_watch(loop) -> None:
    seen = []
    first, peer = socket.socketpair()
    number = first.fileno()
    loop.add_reader(number, seen.append, "stale")
    first.close()
    second, other = socket.socketpair()
    os.dup2(second.fileno(), number)
    loop.add_reader(number, lambda: (seen.append("fresh"), loop.stop()))
    other.send(b"x")
    loop.call_later(5, loop.stop)
    loop.run_forever()
    assert seen == ["fresh"]
    loop.remove_reader(number)
    if second.fileno() != number:
        os.close(number)
    for sock in (second, other, peer):
        sock.close()
