"""Two sides of a TLS connection in memory: an engine, and a plain SSLObject for its peer."""

import ssl

from penstock._core import seams

VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}
PERIOD = bytes(at * 31 % 251 for at in range(251))


def pattern(size):
    """Return bytes in which a shift by a record is seen."""
    return (PERIOD * (size // len(PERIOD) + 1))[:size]


class Side:
    """An SSLObject between two MemoryBIOs."""

    def __init__(self, context, server_side):
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        hostname = None if server_side else "localhost"
        self.ssl_object = context.wrap_bio(self.incoming, self.outgoing, server_side, hostname)

    def read(self, most_bytes=65536):
        """Return bytes, b"" after the end, None before more came."""
        try:
            return self.ssl_object.read(most_bytes)
        except ssl.SSLWantReadError:
            return None
        except ssl.SSLZeroReturnError:
            return b""

    def read_all(self):
        """Return all that can be read now."""
        found = bytearray()
        while data := self.read():
            found += data
        return bytes(found)

    def encrypt(self, data):
        """Return the records of some bytes."""
        self.ssl_object.write(data)
        return self.outgoing.read()


def shake_hands(one, other):
    """Carry bytes both ways until both sides are done; what follows the last flight stays where it is."""
    is_done = [False, False]
    while not all(is_done):
        for at, (side, peer) in enumerate(((one, other), (other, one))):
            if not is_done[at]:
                try:
                    side.ssl_object.do_handshake()
                    is_done[at] = True
                except ssl.SSLWantReadError:
                    pass
            peer.incoming.write(side.outgoing.read())


def use_version(contexts, version):
    server = contexts[0]
    server.minimum_version, server.maximum_version = ssl.TLSVersion.TLSv1_2, VERSIONS[version]
    server.minimum_version = VERSIONS[version]


def plain_pair(contexts, version="1.3"):
    """Return (server, client) with the handshake done."""
    use_version(contexts, version)
    sides = Side(contexts[0], True), Side(contexts[1], False)
    shake_hands(*sides)
    return sides


class Pair:
    """An engine, on the server's side unless asked, and its peer, with the handshake done."""

    def __init__(self, contexts, version="1.3", on_client=False, kind="openssl"):
        use_version(contexts, version)
        hostname = "localhost" if on_client else None
        self.engine = seams.TlsEngine(contexts[on_client], not on_client, hostname)
        self.peer = Side(contexts[not on_client], on_client)
        self.shake_hands()
        self.is_upgraded = kind == "openssl" and self.engine.upgrade()

    def shake_hands(self):
        is_done = [False, False]
        while not all(is_done):
            is_done[0] = is_done[0] or self.engine.handshake() == 1
            self.to_peer()
            try:
                self.peer.ssl_object.do_handshake()
                is_done[1] = True
            except ssl.SSLWantReadError:
                pass
            self.to_engine()

    def send(self, data):
        """Let the engine encrypt all of it. Return the records."""
        view, records = memoryview(data), b""
        while view:
            view = view[self.engine.write(view) :]
            records += self.engine.output()
        return records

    def to_peer(self):
        """Carry the engine's output to the peer."""
        self.peer.incoming.write(self.engine.output())

    def to_engine(self):
        """Carry the peer's output to the engine."""
        self.engine.feed(self.peer.outgoing.read())
