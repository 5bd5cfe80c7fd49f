"""Handshakes: versions, ALPN, SNI, client certificates, resumption, and the info of the transport."""

import asyncio
import ssl

import pytest

from ..wire import Recorder, close_server, socket_pair
from .peer import Peer, connect, is_asyncios, secured


async def test_only_the_version_that_both_allow_is_spoken(pair, side, version):
    pair[0].minimum_version = pair[0].maximum_version = version
    async with secured(pair, side) as (transport, _, peer):
        names = {ssl.TLSVersion.TLSv1_2: "TLSv1.2", ssl.TLSVersion.TLSv1_3: "TLSv1.3"}
        assert transport.get_extra_info("ssl_object").version() == peer.tls.version() == names[version]


@pytest.mark.parametrize(("offered", "chosen"), [(["h2", "http/1.1"], "h2"), (["spdy"], None), ([], None)])
async def test_alpn_chooses_the_servers_first(pair, side, version, offered, chosen):
    pair[0].set_alpn_protocols(["h2", "http/1.1"])
    pair[0].maximum_version = version
    if offered:
        pair[1].set_alpn_protocols(offered)
    async with secured(pair, side) as (transport, _, peer):
        assert transport.get_extra_info("ssl_object").selected_alpn_protocol() == chosen
        assert peer.tls.selected_alpn_protocol() == chosen


async def test_sni_chooses_a_context(certificates, pair, side):
    asked = []

    def choose(ssl_object, name, context):
        asked.append((name, context is pair[0], ssl_object.server_side))
        ssl_object.context = certificates.server("other")

    pair[0].sni_callback = choose
    options = (
        {"peer": {"server_hostname": "other.example"}} if side == "server" else {"server_hostname": "other.example"}
    )
    async with secured(pair, side, **options) as (transport, _, peer):
        client = peer.tls if side == "server" else transport.get_extra_info("ssl_object")
        assert client.getpeercert()["subject"] == ((("commonName", "other.example"),),)
        assert asked == [("other.example", True, True)]
        if side == "server":
            # the context at the time of the call is what `sslcontext` gives, as with asyncio
            assert transport.get_extra_info("sslcontext") is pair[0]
            assert transport.get_extra_info("ssl_object").context is not pair[0]


async def test_a_client_without_a_name_sends_no_sni(pair):
    asked = []
    pair[0].sni_callback = lambda _, name, context: asked.append(name)
    pair[1].check_hostname = False
    async with secured(pair, "client", server_hostname=""):
        assert asked == [None]


@pytest.mark.parametrize("mode", [ssl.CERT_OPTIONAL, ssl.CERT_REQUIRED])
async def test_a_clients_certificate_is_its_peercert(certificates, side, version, mode):
    contexts = certificates.server(verify=mode), certificates.client("client")
    contexts[0].maximum_version = version
    async with secured(contexts, side) as (transport, _, peer):
        server = transport.get_extra_info("ssl_object") if side == "server" else peer.tls
        await peer.write(b"x")  # TLS 1.3: the client is done before the server
        assert server.getpeercert()["subject"] == ((("commonName", "client"),),)
        if side == "server":
            assert transport.get_extra_info("peercert") == server.getpeercert()


async def test_an_optional_certificate_may_be_missing(certificates, side, version):
    contexts = certificates.server(verify=ssl.CERT_OPTIONAL), certificates.client()
    contexts[0].maximum_version = version
    async with secured(contexts, side) as (transport, _, peer):
        server = transport.get_extra_info("ssl_object") if side == "server" else peer.tls
        assert server.getpeercert() is None


async def test_a_session_is_resumed(pair, side, version):
    """The peer resumes as a client; asyncio's clients have no way to, and full handshakes on their side go on."""
    pair[0].maximum_version = version
    session = None
    for is_reused in (False, True):
        options = {"peer": {"session": session}} if side == "server" else {}
        async with secured(pair, side, **options) as (transport, protocol, peer):
            transport.write(b"x")
            assert await peer.read() == b"x"
            await peer.write(b"y")
            await protocol.until_bytes(1)
            ours = transport.get_extra_info("ssl_object")
            assert ours.session_reused is peer.tls.session_reused is (is_reused and side == "server")
            session = peer.tls.session
            assert side == "server" or ours.session is not None


async def test_the_info_of_a_transport(pair, side):
    async with secured(pair, side) as (transport, protocol, peer):
        info = transport.get_extra_info
        assert info("sslcontext") is pair[0 if side == "server" else 1]
        assert info("cipher") == info("ssl_object").cipher()
        assert info("compression") is None
        assert info("compression", "default") is None
        assert info("peername") == peer.sock.getsockname()
        assert info("sockname") == peer.sock.getpeername()
        assert info("socket").fileno() >= 0
        assert info("nothing") is None
        assert info("nothing", 1) == 1
        if side == "client":
            assert info("peercert")["subjectAltName"] == (("DNS", "localhost"),)
        else:
            assert info("peercert") is None
        assert isinstance(info("ssl_object"), ssl.SSLObject)
        assert info("ssl_object").server_side is (side == "server")
        assert info("ssl_object").server_hostname == (None if side == "server" else "localhost")


async def test_the_transport_of_a_protocol_is_told_before_its_data(pair, side):
    class Asking(Recorder):
        def connection_made(self, transport):
            super().connection_made(transport)
            self.seen = transport.get_extra_info("ssl_object").version()
            assert transport.get_protocol() is self
            assert not transport.is_closing()
            assert transport.is_reading()
            assert not transport.can_write_eof()

    async with secured(pair, side, Asking()) as (transport, protocol, peer):
        await peer.write(b"x")
        await protocol.until_bytes(1)
        assert protocol.seen
        assert protocol.transport is transport
        assert protocol.events == ["made", "data"]
        with pytest.raises(NotImplementedError):
            transport.write_eof()


async def test_data_that_comes_with_the_last_flight_follows_connection_made(pair, version):
    """A client's Finished and its first bytes in one segment."""
    pair[0].maximum_version = version
    ours, theirs = socket_pair()
    protocol = Recorder()
    peer = Peer(theirs, pair[1], is_server=False)
    connecting = asyncio.ensure_future(
        asyncio.get_running_loop().connect_accepted_socket(lambda: protocol, ours, ssl=pair[0])
    )
    while True:
        try:
            peer.tls.do_handshake()
        except ssl.SSLWantReadError:
            await peer.send(peer.outgoing.read())
            await peer.receive()
        else:
            break
    flight = peer.outgoing.read()  # TLS 1.2: the server's Finished has come, and ours is sent
    await peer.send(flight + peer.records(b"early") + peer.close_notify())
    transport, _ = await connecting
    await protocol.until_event("lost")
    assert (protocol.events, protocol.data, protocol.error) == (["made", "data", "eof", "lost"], b"early", None)
    theirs.close()


async def test_a_client_that_pauses_at_once_completes_its_handshake(pair):
    class Pausing(Recorder):
        def connection_made(self, transport):
            super().connection_made(transport)
            # asyncio sends the last flight when reading is resumed, and no earlier
            if not is_asyncios(transport):
                transport.pause_reading()

    async with secured(pair, "client", Pausing()) as (transport, _, peer):
        assert peer.tls.version() == "TLSv1.3"
        assert is_asyncios(transport) or not transport.is_reading()


async def test_debug_mode_changes_nothing(loop, pair, side):
    loop.set_debug(True)
    async with secured(pair, side) as (transport, protocol, peer):
        await peer.write(b"x")
        await protocol.until_bytes(1)
        transport.write(b"y")
        assert await peer.read() == b"y"
        transport.close()
        await peer.close()
        await protocol.until_event("lost")
    assert protocol.events == ["made", "data", "eof", "lost"]


async def test_a_default_context_verifies(loop, pair):
    server = await loop.create_server(Recorder, "127.0.0.1", 0, ssl=pair[0])
    with pytest.raises(ssl.SSLCertVerificationError):
        await loop.create_connection(Recorder, *server.sockets[0].getsockname(), ssl=True, server_hostname="localhost")
    await close_server(server)


async def test_arguments_that_do_not_fit_are_refused(loop, pair):
    server = await loop.create_server(Recorder, "127.0.0.1", 0)
    address = server.sockets[0].getsockname()
    refused = [
        ({"ssl": None, "server_hostname": "localhost"}, "server_hostname is only meaningful with ssl"),
        ({"ssl": None, "ssl_handshake_timeout": 1}, "ssl_handshake_timeout is only meaningful with ssl"),
        ({"ssl": None, "ssl_shutdown_timeout": 1}, "ssl_shutdown_timeout is only meaningful with ssl"),
    ]
    for options, message in refused:
        with pytest.raises(ValueError, match=message):
            await loop.create_connection(Recorder, *address, **options)
    with pytest.raises(TypeError, match="SSLContext"):
        await loop.create_server(Recorder, "127.0.0.1", 0, ssl=True)
    await close_server(server)


@pytest.mark.parametrize("name", ["ssl_handshake_timeout", "ssl_shutdown_timeout"])
@pytest.mark.parametrize("value", [0, -1.5])
async def test_a_timeout_is_positive(pair, side, name, value):
    ours, theirs = socket_pair()
    with ours, theirs, pytest.raises(ValueError, match=f"{name} should be a positive number, got {value}"):
        await connect(ours, pair, side, Recorder(), **{name: value})
