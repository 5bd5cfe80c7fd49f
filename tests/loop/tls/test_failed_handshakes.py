"""Failed handshakes: both sides' exceptions are asyncio's, nothing is reported twice, and nothing stays open."""

import asyncio
import socket
import ssl

import pytest

from ..wire import Recorder, close_server, read_to_end, socket_pair
from .peer import connect, peer_of, secured, unsecured

# asyncio sends no alert when a handshake fails: the other side sees a reset, or the alert of a loop that sends it
FAILURES = (ssl.SSLError, ConnectionResetError)


async def both(pair, **options):
    """Return the protocols and errors of a handshake whose two sides are both of the loop under test."""
    ours, theirs = socket_pair()
    protocols = Recorder(), Recorder()
    results = await asyncio.gather(
        connect(ours, pair, "server", protocols[0]),
        connect(theirs, pair, "client", protocols[1], **options),
        return_exceptions=True,
    )
    for result in results:
        if not isinstance(result, BaseException):
            result[0].abort()
    for protocol in protocols:
        if "made" in protocol.events:
            await protocol.until_event("lost")
    return protocols, [result if isinstance(result, BaseException) else None for result in results]


@pytest.mark.parametrize(
    ("name", "code"), [("other", 62), ("expired", 10), ("stranger", 18)], ids=["wrong host", "expired", "untrusted"]
)
async def test_a_bad_certificate_is_refused_by_the_client(certificates, version, problems, name, code):
    contexts = certificates.server(name), certificates.client()
    contexts[0].maximum_version = version
    protocols, (theirs, ours) = await both(contexts)
    assert type(ours) is ssl.SSLCertVerificationError
    assert ours.verify_code == code
    assert protocols[1].events == []
    assert isinstance(theirs, FAILURES)
    assert protocols[0].events == []
    assert problems == []


async def test_a_required_certificate_that_is_missing_fails_the_server(certificates, version, problems):
    contexts = certificates.server(verify=ssl.CERT_REQUIRED), certificates.client()
    contexts[0].maximum_version = version
    protocols, (server, client) = await both(contexts)
    assert isinstance(server, ssl.SSLError)
    assert server.reason == "PEER_DID_NOT_RETURN_A_CERTIFICATE"
    assert protocols[0].events == []
    if version is ssl.TLSVersion.TLSv1_2:
        assert isinstance(client, FAILURES)
        assert protocols[1].events == []
    assert problems == []


async def test_a_client_of_tls_1_3_hears_of_its_missing_certificate_after_the_handshake(certificates, problems):
    contexts = certificates.server(verify=ssl.CERT_REQUIRED), certificates.client()
    ours, theirs = socket_pair()
    protocol, peer = Recorder(), peer_of(theirs, contexts, "client")
    connecting = asyncio.ensure_future(connect(ours, contexts, "client", protocol))
    with pytest.raises(ssl.SSLError, match="PEER_DID_NOT_RETURN_A_CERTIFICATE"):
        await peer.handshake()
    await connecting
    await protocol.until_event("lost")
    assert protocol.events == ["made", "lost"]
    assert type(protocol.error) is ssl.SSLError
    assert protocol.error.reason.endswith("CERTIFICATE_REQUIRED")
    assert problems == []
    theirs.close()


async def test_a_certificate_of_a_stranger_fails_the_server(certificates, version, problems):
    contexts = certificates.server(verify=ssl.CERT_REQUIRED), certificates.client("stranger")
    contexts[0].maximum_version = version
    protocols, (server, _) = await both(contexts)
    assert type(server) is ssl.SSLCertVerificationError
    assert server.verify_code == 18
    assert protocols[0].events == []
    assert problems == []


async def test_versions_without_overlap_fail_both_sides(pair, problems):
    pair[0].maximum_version = ssl.TLSVersion.TLSv1_2
    pair[1].minimum_version = ssl.TLSVersion.TLSv1_3
    protocols, (server, client) = await both(pair)
    assert server.reason == "UNSUPPORTED_PROTOCOL"
    assert isinstance(client, FAILURES)
    assert [protocol.events for protocol in protocols] == [[], []]
    assert problems == []


async def test_sni_that_is_refused_ends_the_handshake_with_its_alert(pair, problems):
    pair[0].sni_callback = lambda *_: ssl.ALERT_DESCRIPTION_ACCESS_DENIED
    _, (server, client) = await both(pair)
    assert server.reason == "CALLBACK_FAILED"
    assert isinstance(client, FAILURES)
    assert problems == []


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_sni_that_raises_ends_the_handshake(pair, problems):
    def fail(*_):
        raise ValueError

    pair[0].sni_callback = fail
    _, (server, client) = await both(pair)
    assert server.reason == "CALLBACK_FAILED"
    assert isinstance(client, FAILURES)
    assert problems == []


@pytest.mark.parametrize("is_debug", [False, True])
async def test_a_server_reports_a_failed_handshake_in_debug_mode_only(loop, pair, problems, is_debug):
    loop.set_debug(is_debug)
    server = await loop.create_server(Recorder, "127.0.0.1", 0, ssl=pair[0])
    _, plain = await loop.create_connection(Recorder, *server.sockets[0].getsockname())
    plain.transport.write(b"GET / HTTP/1.0\r\n\r\n")
    await plain.until_event("lost")
    await close_server(server)
    told = [(problem["message"], type(problem["exception"])) for problem in problems]
    assert told == [("Error on transport creation for incoming connection", ssl.SSLError)] * is_debug


@pytest.mark.parametrize("garbage", [b"GET / HTTP/1.0\r\n\r\n", bytes(100), b"\x16\x03\x01\x00\x05hello"])
async def test_garbage_instead_of_a_handshake(pair, side, problems, garbage):
    async with unsecured(pair, side) as (task, protocol, peer):
        await peer.send(garbage)
        with pytest.raises(ssl.SSLError):
            await task
        assert protocol.events == []
    assert problems == []


@pytest.mark.parametrize("how", ["close", "reset"])
@pytest.mark.parametrize("part", [0.0, 0.01, 0.5, 0.99])
async def test_a_peer_that_leaves_during_the_handshake(pair, side, problems, how, part):
    async with unsecured(pair, side) as (task, protocol, peer):
        if side == "client":
            await peer.receive()
        with pytest.raises(ssl.SSLWantReadError):
            peer.tls.do_handshake()
        flight = peer.outgoing.read()
        await peer.send(flight[: int(len(flight) * part)])
        if how == "reset":
            peer.reset()
        else:
            # all of ours is read: the end is a FIN
            peer.sock.shutdown(socket.SHUT_WR)
        with pytest.raises(ConnectionResetError):
            await task
        assert protocol.events == []
    assert problems == []


async def test_a_handshake_without_an_answer_times_out(pair, side, problems):
    ours, theirs = socket_pair()
    protocol = Recorder()
    with pytest.raises(ConnectionAbortedError, match=r"SSL handshake is taking longer than 0\.05 seconds"):
        await connect(ours, pair, side, protocol, ssl_handshake_timeout=0.05)
    await read_to_end(theirs)
    assert protocol.events == []
    assert ours.fileno() == -1
    assert problems == []
    theirs.close()


async def test_a_finished_handshake_times_out_no_more(loop, pair, side):
    async with secured(pair, side, ssl_handshake_timeout=0.5) as (transport, protocol, peer):
        await asyncio.sleep(0.6)
        await peer.write(b"x")
        await protocol.until_bytes(1)
        assert not transport.is_closing()


async def test_a_server_outlives_clients_that_say_nothing(loop, pair, problems):
    server = await loop.create_server(Recorder, "127.0.0.1", 0, ssl=pair[0], ssl_handshake_timeout=0.05)
    address = server.sockets[0].getsockname()
    _, plain = await loop.create_connection(Recorder, *address)
    await plain.until_event("lost")
    assert plain.data == b""
    assert problems == []
    transport, protocol = await loop.create_connection(Recorder, *address, ssl=pair[1], server_hostname="localhost")
    transport.abort()
    await protocol.until_event("lost")
    await close_server(server)


@pytest.mark.parametrize("progress", ["none", "some"])
async def test_a_cancelled_handshake_leaves_nothing(pair, side, problems, progress):
    ours, theirs = socket_pair()
    protocol, peer = Recorder(), peer_of(theirs, pair, side)
    task = asyncio.ensure_future(connect(ours, pair, side, protocol))
    if side == "client":
        await peer.receive()
    else:
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    if progress == "some":
        with pytest.raises(ssl.SSLWantReadError):
            peer.tls.do_handshake()
        await peer.send(peer.outgoing.read()[:-1])
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    try:
        await read_to_end(theirs)
    except ConnectionResetError:
        pass  # unread bytes of ours
    assert ours.fileno() == -1
    assert protocol.events == []
    assert problems == []
    theirs.close()


@pytest.mark.parametrize(("name", "reason"), [("expired", "CERTIFICATE_EXPIRED"), ("stranger", "UNKNOWN_CA")])
async def test_the_alert_of_a_client_that_refuses_is_the_servers_error(certificates, version, problems, name, reason):
    contexts = certificates.server(name), certificates.client()
    contexts[0].maximum_version = version
    async with unsecured(contexts, "server") as (task, protocol, peer):
        with pytest.raises(ssl.SSLCertVerificationError):
            await peer.handshake()
        with pytest.raises(ssl.SSLError) as caught:
            await task
        assert caught.value.reason.endswith(reason)
        assert protocol.events == []
    assert problems == []


async def test_the_alert_of_a_server_that_refuses_is_the_clients_error(pair, problems):
    pair[0].maximum_version = ssl.TLSVersion.TLSv1_2
    pair[1].minimum_version = ssl.TLSVersion.TLSv1_3
    async with unsecured(pair, "client") as (task, protocol, peer):
        with pytest.raises(ssl.SSLError, match="UNSUPPORTED_PROTOCOL"):
            await peer.handshake()
        with pytest.raises(ssl.SSLError, match="TLSV1_ALERT_PROTOCOL_VERSION"):
            await task
        assert protocol.events == []
    assert problems == []
