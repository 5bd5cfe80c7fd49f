"""A refused connection lingers until its client has read the answer, and ends where the client has gone."""

import asyncio
import socket
import struct

from penstock.loop.lingering import close_lingering

NO_LINGER = struct.pack("ii", 1, 0)


class Refusing(asyncio.Protocol):
    """Refuses a connection in the turn that accepts it, after its client has reset it."""

    def __init__(self, client, ended):
        self.client, self.ended = client, ended
        self.failure = None

    def connection_made(self, transport):
        self.client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGER)
        self.client.close()
        try:
            close_lingering(transport)
        except OSError as error:
            self.failure = error

    def connection_lost(self, error):
        self.ended.set_result(self.failure)


def test_a_refusal_of_a_client_that_has_gone_ends_the_connection(run):
    async def main():
        loop = asyncio.get_running_loop()
        ended, client = loop.create_future(), socket.socket()
        server = await loop.create_server(lambda: Refusing(client, ended), "127.0.0.1", 0)
        client.connect(server.sockets[0].getsockname())
        assert await ended is None
        server.close()

    run(main())
