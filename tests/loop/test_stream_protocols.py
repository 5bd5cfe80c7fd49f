"""Protocols on a transport: buffers of their own, a new protocol, exceptions in any callback."""

import asyncio
import socket

import pytest

from .wire import BufferedRecorder, Recorder, pattern, read_to_end, settle, wired


@pytest.mark.parametrize("size", [1, 7, 1024, 65_536, 1_000_000])
async def test_a_buffered_protocol_receives_into_its_own_buffer(loop, family, size):
    total = min(size * 50, 3_000_000)

    async with wired(BufferedRecorder(size), family) as (_, protocol, peer):
        await asyncio.gather(loop.sock_sendall(peer, pattern(total)), protocol.inner.until_bytes(total))
        peer.shutdown(socket.SHUT_WR)
        await protocol.inner.until_event("lost")
        assert protocol.data == pattern(total)
        assert protocol.inner.events == ["made", "data", "eof", "lost"]
        assert set(protocol.hints) == {-1}


async def test_a_buffered_protocol_may_return_a_memoryview():
    class View(BufferedRecorder):
        def get_buffer(self, sizehint):
            return memoryview(super().get_buffer(sizehint))[:3]

    async with wired(View()) as (_, protocol, peer):
        peer.send(pattern(100))
        await protocol.inner.until_bytes(100)
        assert protocol.data == pattern(100)


def test_an_empty_buffer_is_a_fatal_error(run, problems):
    async def main():
        async with wired(BufferedRecorder(0)) as (_, protocol, peer):
            peer.send(b"data")
            await protocol.inner.until_event("lost")
            assert isinstance(protocol.inner.error, RuntimeError)

    run(main())
    assert "get_buffer" in problems[0]["message"]


@pytest.mark.parametrize("name", ["get_buffer", "buffer_updated"])
def test_an_error_in_a_buffered_protocol_is_fatal_for_its_connection(run, problems, name):
    async def main():
        protocol = BufferedRecorder()
        setattr(protocol, name, lambda number: 1 / 0)
        async with wired(protocol) as (_, _, peer):
            peer.send(b"data")
            await protocol.inner.until_event("lost")
            assert isinstance(protocol.inner.error, ZeroDivisionError)

    run(main())
    assert name in problems[0]["message"]


async def test_a_paused_buffered_protocol_is_not_asked_for_a_buffer():
    async with wired(BufferedRecorder()) as (transport, protocol, peer):
        transport.pause_reading()
        peer.send(b"data")
        await settle(10)
        assert protocol.hints == []
        transport.resume_reading()
        await protocol.inner.until_bytes(4)


async def test_a_protocol_set_in_data_received_gets_the_rest(loop, family):
    size = 2_000_000

    heir = Recorder()
    heir.note("made")

    class Gives(Recorder):
        def data_received(self, data):
            super().data_received(data)
            self.transport.set_protocol(heir)
            assert self.transport.get_protocol() is heir

    async with wired(Gives(), family) as (_, giver, peer):
        await loop.sock_sendall(peer, pattern(size))
        peer.shutdown(socket.SHUT_WR)
        await heir.until_event("lost")
        assert len(giver.chunks) == 1
        assert giver.data + heir.data == pattern(size)
        assert giver.events == ["made", "data"]


async def test_a_buffered_protocol_set_in_data_received_gets_the_rest(loop, family):
    size = 2_000_000

    heir = BufferedRecorder(5000)
    heir.inner.note("made")

    class Gives(Recorder):
        def data_received(self, data):
            super().data_received(data)
            self.transport.set_protocol(heir)

    async with wired(Gives(), family) as (_, giver, peer):
        await loop.sock_sendall(peer, pattern(size))
        peer.shutdown(socket.SHUT_WR)
        await heir.inner.until_event("lost")
        assert giver.data + heir.data == pattern(size)


async def test_a_plain_protocol_set_in_buffer_updated_gets_the_rest(loop, family):
    size = 2_000_000

    heir = Recorder()
    heir.note("made")

    class Gives(BufferedRecorder):
        def buffer_updated(self, nbytes):
            super().buffer_updated(nbytes)
            self.inner.transport.set_protocol(heir)

    async with wired(Gives(), family) as (_, giver, peer):
        await loop.sock_sendall(peer, pattern(size))
        peer.shutdown(socket.SHUT_WR)
        await heir.until_event("lost")
        assert giver.data + heir.data == pattern(size)


def test_an_error_in_data_received_is_fatal_for_its_connection_only(run, problems):
    async def main():
        class Broken(Recorder):
            def data_received(self, data):
                raise LookupError("data")

        async with wired(Broken()) as (transport, protocol, peer), wired() as (_, other, other_peer):
            peer.send(b"data")
            await protocol.until_event("lost")
            assert isinstance(protocol.error, LookupError)
            other_peer.send(b"data")
            await other.until_bytes(4)
            assert problems[0]["transport"] is transport and problems[0]["protocol"] is protocol

    run(main())
    assert "data_received" in problems[0]["message"]


def test_an_error_in_eof_received_is_fatal(run, problems):
    async def main():
        class Broken(Recorder):
            def eof_received(self):
                raise LookupError("eof")

        async with wired(Broken()) as (_, protocol, peer):
            peer.shutdown(socket.SHUT_WR)
            await protocol.until_event("lost")
            assert isinstance(protocol.error, LookupError)

    run(main())
    assert "eof_received" in problems[0]["message"]


def test_an_error_in_connection_made_is_reported(run, problems):
    async def main():
        class Broken(Recorder):
            def connection_made(self, transport):
                super().connection_made(transport)
                raise LookupError("made")

        async with wired(Broken()) as (transport, protocol, peer):
            await settle()
            peer.send(b"data")
            await protocol.until_bytes(4)
            assert not transport.is_closing()

    run(main())
    assert isinstance(problems[0]["exception"], LookupError)


def test_an_error_in_connection_lost_is_reported_and_the_socket_is_closed_all_the_same(run, problems):
    async def main():
        class Broken(Recorder):
            def connection_lost(self, exc):
                super().connection_lost(exc)
                raise LookupError("lost")

        async with wired(Broken()) as (transport, protocol, peer):
            transport.close()
            await protocol.until_event("lost")
            assert await read_to_end(peer) == b""

    run(main())
    assert isinstance(problems[0]["exception"], LookupError)


@pytest.mark.parametrize("name", ["pause_writing", "resume_writing"])
def test_an_error_in_flow_control_is_reported_and_the_data_goes_out(run, problems, name):
    async def main():
        protocol = Recorder()

        def broken():
            raise LookupError(name)

        setattr(protocol, name, broken)
        async with wired(protocol) as (transport, _, peer):
            transport.write(pattern(5_000_000))
            transport.close()
            assert await read_to_end(peer) == pattern(5_000_000)

    run(main())
    assert isinstance(problems[0]["exception"], LookupError)
    assert f"protocol.{name}() failed" in problems[0]["message"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_an_exit_in_data_received_leaves_the_loop_and_the_next_run_goes_on(loop, run, error):
    class Leaves(Recorder):
        left = False

        def data_received(self, data):
            super().data_received(data)
            if not self.left:
                self.left = True
                raise error

    protocol = Leaves()

    async def main():
        async with wired(protocol) as (_, _, peer):
            peer.send(b"data")
            await protocol.until_event("never")

    task = loop.create_task(main())
    with pytest.raises(error):
        loop.run_forever()

    async def clean_up():
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    run(clean_up())
    assert protocol.data == b"data"


async def test_the_callbacks_of_a_connection_share_what_connection_made_cannot_lose():
    import contextvars

    variable = contextvars.ContextVar("variable", default="outside")

    seen = []

    class Sees(Recorder):
        def connection_made(self, transport):
            super().connection_made(transport)
            seen.append(variable.get())

        def data_received(self, data):
            seen.append(variable.get())
            super().data_received(data)

    variable.set("at creation")
    async with wired(Sees()) as (_, protocol, peer):
        peer.send(b"x")
        await protocol.until_bytes(1)
    assert seen == ["at creation", "at creation"]


@pytest.mark.parametrize("target", [lambda protocol: protocol, type], ids=["instance", "class"])
async def test_a_data_received_that_replaces_another_gets_the_next_data(monkeypatch, target):
    seen = []

    class Patched(Recorder):
        pass

    async with wired(Patched()) as (_, protocol, peer):
        peer.send(b"first")
        await protocol.until_bytes(5)
        replaced = target(protocol)
        monkeypatch.setattr(replaced, "data_received", lambda *args: (seen.append(args[-1]), protocol.note("seen")))
        peer.send(b"second")
        await protocol.until_event("seen")
        assert (bytes(protocol.data), seen) == (b"first", [b"second"])
        monkeypatch.undo()
        peer.send(b"third")
        await protocol.until_bytes(10)
        assert protocol.data == b"firstthird"


async def test_a_buffered_protocols_methods_may_be_replaced_between_reads():
    other, updates = bytearray(100), []
    async with wired(BufferedRecorder()) as (_, protocol, peer):
        peer.send(b"first")
        await protocol.inner.until_bytes(5)
        protocol.get_buffer = lambda sizehint: other
        protocol.buffer_updated = lambda count: (updates.append(count), protocol.inner.note("seen"))
        peer.send(b"second")
        await protocol.inner.until_event("seen")
        assert (other[:6], updates) == (b"second", [6])


async def test_data_that_a_protocol_keeps_stays_as_it_was(loop):
    class Keeps(Recorder):
        def data_received(self, data):
            super().data_received(data)
            hash(data)  # a dropped object's hash is no other's
            self.found.append({data: len(data)}[bytes(bytearray(data))])
            del self.chunks[:-1]
            self.kept += [(data, bytearray(data))] if len(self.found) % 3 == 0 else []

    protocol = Keeps()
    protocol.found, protocol.kept = [], []
    sizes = [1, 511, 512, 513, 900, 600, 1023, 1024, 1025, 4096, 4095, 10_000, 17_000, 40_000, 200_000, 90_000, 16_384]
    sent = pattern(sum(sizes) * 6)
    async with wired(protocol) as (_, _, peer):
        at = 0
        for size in sizes * 6:
            await loop.sock_sendall(peer, sent[at : at + size])
            at += size
            await protocol.until_bytes(at)
    assert sum(protocol.found) == len(sent)
    assert protocol.data == sent
    assert len(protocol.kept) > 15
    assert all(data == copy and len(data) == len(copy) for data, copy in protocol.kept)


async def test_a_protocol_after_one_with_a_large_buffer_gets_the_rest(loop):
    class Large(BufferedRecorder):
        def buffer_updated(self, nbytes):
            super().buffer_updated(nbytes)
            if nbytes > 300_000:
                self.inner.transport.set_protocol(heir)

    heir = Recorder()
    heir.note("made")
    sent = pattern(4_000_000)
    async with wired(Large(2_000_000), "tcp") as (transport, giver, peer):
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2_000_000)
        transport.pause_reading()
        sending = asyncio.ensure_future(loop.sock_sendall(peer, sent))
        await asyncio.wait([sending], timeout=0.05)  # as much as the kernel takes
        transport.resume_reading()
        await sending
        peer.shutdown(socket.SHUT_WR)
        await asyncio.wait(
            [asyncio.ensure_future(each.until_event("lost")) for each in (giver.inner, heir)],
            return_when="FIRST_COMPLETED",
        )
        assert giver.data + heir.data == sent
