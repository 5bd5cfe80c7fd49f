"""Tests of what the native TLS connection does by itself: records, foreign SSLObjects, other transports below."""

import asyncio
import ssl

import pytest

from tests.loop.wire import Recorder

pytest.importorskip("penstock._core.tls.transport", exc_type=ImportError)


class Lower(asyncio.Transport):
    """A transport in memory, which delivers what its twin writes, in the next turn."""

    _start_tls_compatible = True

    def __init__(self) -> None:
        super().__init__()
        self.twin: Lower | None = None
        self.protocol: asyncio.Protocol | None = None
        self.writes: list[bytes] = []
        self.is_closed = False

    def write(self, data):
        self.writes.append(bytes(data))
        asyncio.get_running_loop().call_soon(self.twin.deliver, bytes(data))

    def deliver(self, data):
        if self.is_closed:
            return
        if isinstance(self.protocol, asyncio.BufferedProtocol):
            for start in range(0, len(data), 65536):
                piece = data[start : start + 65536]
                self.protocol.get_buffer(len(piece))[: len(piece)] = piece
                self.protocol.buffer_updated(len(piece))
        else:
            self.protocol.data_received(data)

    def set_protocol(self, protocol):
        self.protocol = protocol

    def is_closing(self):
        return self.is_closed

    def close(self):
        self._force_close(None)

    def abort(self):
        self._force_close(None)  # up to 3.12 asyncio's TLS calls it

    def _force_close(self, exc):
        if not self.is_closed:
            self.is_closed = True
            asyncio.get_running_loop().call_soon(self.protocol.connection_lost, exc)

    def pause_reading(self):
        pass

    def resume_reading(self):
        pass


async def in_memory(contexts):
    """Return both sides' transports over transports in memory, with their protocols and the transports below."""
    loop = asyncio.get_running_loop()
    below = Lower(), Lower()
    below[0].twin, below[1].twin = below[1], below[0]
    protocols = Recorder(), Recorder()
    for protocol in protocols:
        protocol.note("made")
    transports = await asyncio.gather(
        loop.start_tls(below[0], protocols[0], contexts[0], server_side=True),
        loop.start_tls(below[1], protocols[1], contexts[1], server_hostname="localhost"),
    )
    return transports, protocols, below


def test_it_works_over_a_transport_that_is_not_native(run, contexts):
    async def main():
        transports, protocols, below = await in_memory(contexts)
        transports[1].write(b"a question")
        await protocols[0].until_bytes(10)
        transports[0].write(bytes(300_000))
        await protocols[1].until_bytes(300_000)
        transports[0].close()
        await protocols[1].until_event("lost")
        await protocols[0].until_event("lost")
        assert protocols[1].events[-2:] == ["eof", "lost"]

    run(main())


class Answering(asyncio.Protocol):
    """Answers whatever comes by ten writes."""

    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        for _ in range(10):
            self.transport.write(b"x" * 100)


async def records_of_answer(address, context) -> list[int]:
    """Ask once, by TLS 1.2, whose records show what they are. Return the sizes of the records of the answer."""
    reader, writer = await asyncio.open_connection(*address)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context.wrap_bio(incoming, outgoing, server_hostname="localhost")
    while True:
        try:
            client.do_handshake()
            break
        except ssl.SSLWantReadError:
            writer.write(outgoing.read())
            incoming.write(await reader.read(65536))
    client.write(b"?")
    writer.write(outgoing.read())
    sizes, got = [], 0
    while got < 1000:
        header = await reader.readexactly(5)
        body = await reader.readexactly(int.from_bytes(header[3:], "big"))
        incoming.write(header + body)
        if header[0] == ssl._TLSContentType.APPLICATION_DATA:
            sizes.append(len(body))
            got += len(client.read(65536))
    writer.transport.abort()
    return sizes


def test_writes_of_one_callback_leave_in_one_record(run, loop, contexts):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.maximum_version = ssl.TLSVersion.TLSv1_2

    async def main():
        server = await loop.create_server(Answering, "127.0.0.1", 0, ssl=contexts[0])
        sizes = await records_of_answer(server.sockets[0].getsockname(), context)
        server.close()
        return len(sizes)

    assert run(main()) == (1 if hasattr(loop, "_native_core") else 10)


class CountingObject(ssl.SSLObject):
    """An SSLObject with methods of its own."""

    calls: list[str]

    def read(self, len=1024, buffer=None):  # noqa: A002
        type(self).calls.append("read")
        return super().read(len, buffer) if buffer is not None else super().read(len)

    def write(self, data):
        type(self).calls.append("write")
        return super().write(data)


def test_methods_of_an_sslobject_class_are_called(run, contexts):
    CountingObject.calls = []
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.sslobject_class = CountingObject

    async def main():
        server = await asyncio.get_running_loop().create_server(Echo, "127.0.0.1", 0, ssl=contexts[0])
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname(), ssl=context)
        writer.write(bytes(100_000))
        assert await reader.readexactly(100_000) == bytes(100_000)
        assert type(writer.get_extra_info("ssl_object")) is CountingObject
        writer.close()
        await writer.wait_closed()
        server.close()

    run(main())
    assert {"read", "write"} <= set(CountingObject.calls)


class Echo(asyncio.Protocol):
    """An echo."""

    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.transport.write(data)


def test_isinstance_holds_for_the_transport(run, contexts):
    async def main():
        transports, protocols, _ = await in_memory(contexts)
        assert all(isinstance(transport, asyncio.Transport) for transport in transports)
        for transport in transports:
            transport.abort()
        await protocols[0].until_event("lost")
        await protocols[1].until_event("lost")

    run(main())
