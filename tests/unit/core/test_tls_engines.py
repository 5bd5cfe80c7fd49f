"""The engines of TLS against a plain SSLObject: every byte, every cut, every failure as `ssl`'s."""

import gc
import ssl
import threading

import pytest

from penstock._core import seams
from penstock._core.tls import sslobject

from .tlspair import VERSIONS, Pair, Side, pattern, plain_pair

LIFE_CYCLES = 10_000
RECORD_BYTES = 16 * 1024


@pytest.fixture(autouse=True)
def best_engine():
    """The engine that calls OpenSSL, whatever the environment says; skip where it is not to be had."""
    sslobject.choose("openssl")
    if sslobject.why_memory():
        pytest.skip(sslobject.why_memory())
    yield
    sslobject.choose("")


@pytest.fixture(params=list(VERSIONS))
def version(request):
    return request.param


@pytest.fixture(params=["server", "client"])
def side(request):
    return request.param


@pytest.fixture(params=["openssl", "memory"])
def kind(request):
    return request.param


@pytest.fixture
def pair(pristine, version, side, kind):
    return Pair(pristine, version, side == "client", kind)


@pytest.fixture
def upgraded(pristine, version, side):
    """A pair whose engine calls OpenSSL."""
    return Pair(pristine, version, side == "client")


@pytest.fixture
def pristine(contexts, request):
    """The contexts, as they were afterwards."""
    server = contexts[0]
    kept = server.minimum_version, server.maximum_version, server.options
    yield contexts
    server.minimum_version, server.maximum_version, server.options = kept


def read_all(engine):
    found = bytearray()
    while data := engine.read():
        found += data
    return bytes(found)


@pytest.mark.parametrize("size", [1, 1024, RECORD_BYTES, RECORD_BYTES + 1, 1_000_003])
def test_every_byte_comes_both_ways(pair, size):
    pair.engine.feed(pair.peer.encrypt(pattern(size)))
    assert read_all(pair.engine) == pattern(size)
    assert pair.engine.read() is None
    pair.peer.incoming.write(pair.send(pattern(size)))
    assert pair.peer.read_all() == pattern(size)


def test_records_may_be_cut_at_every_byte(pristine, version, kind):
    pair = Pair(pristine, version, kind=kind)
    for cut in range(1, 130):
        pair.peer.ssl_object.write(b"x" * 40)
        pair.peer.ssl_object.write(b"y" * 7)
        records = pair.peer.outgoing.read()
        pair.engine.feed(records[:cut])
        early = read_all(pair.engine)
        pair.engine.feed(records[cut:])
        assert early + read_all(pair.engine) == b"x" * 40 + b"y" * 7


def test_bytes_may_come_one_by_one(pair):
    records = pair.peer.encrypt(pattern(300))
    found = b""
    for at in range(len(records)):
        pair.engine.feed(records[at : at + 1])
        found += pair.engine.read() or b""
        pair.engine.settle()
    assert found == pattern(300)


def test_plaintext_is_announced_when_a_whole_record_is_there(pair):
    pair.engine.feed(pair.peer.encrypt(b"first"))
    assert pair.engine.read() == b"first"
    records = pair.peer.encrypt(b"a record")
    pair.engine.feed(records[:-1])
    assert not pair.engine.has_plaintext()
    assert pair.engine.read() is None
    assert not pair.engine.has_plaintext()
    pair.engine.feed(records[-1:])
    assert pair.engine.has_plaintext()
    assert pair.engine.read(1) == b"a"
    assert pair.engine.has_plaintext()
    assert pair.engine.read() == b" record"
    assert not pair.engine.has_plaintext()


def test_what_lies_in_the_memory_bios_moves_to_the_engine(pristine, version):
    server, client = plain_pair(pristine, version)
    server.incoming.write(client.encrypt(b"early"))
    server.ssl_object.write(b"queued")
    engine = seams.TlsEngine.openssl(server.ssl_object)
    assert engine.read() == b"early"
    client.incoming.write(engine.output())
    assert client.read_all() == b"queued"
    assert server.incoming.pending == server.outgoing.pending == 0


def test_an_end_in_the_memory_bio_moves_too(pristine, version):
    pristine[0].options &= ~ssl.OP_IGNORE_UNEXPECTED_EOF
    server, _ = plain_pair(pristine, version)
    server.incoming.write_eof()
    engine = seams.TlsEngine.openssl(server.ssl_object)
    with pytest.raises(ssl.SSLEOFError):
        read_all(engine)


# --- the end ---


def test_close_notify_ends_the_reading(pair):
    with pytest.raises(ssl.SSLWantReadError):
        pair.peer.ssl_object.unwrap()
    pair.engine.feed(pair.peer.outgoing.read())
    assert pair.engine.read() == b""
    assert pair.engine.read() == b""
    assert pair.engine.shut_down() == 1
    pair.to_peer()
    pair.peer.ssl_object.unwrap()


def test_close_notify_is_sent_first(pair):
    assert pair.engine.shut_down() == -1
    pair.to_peer()
    assert pair.peer.read() == b""
    pair.peer.ssl_object.unwrap()
    pair.to_engine()
    assert pair.engine.shut_down() == 1


def test_data_before_close_notify_is_not_lost(pair):
    pair.peer.ssl_object.write(b"last words")
    with pytest.raises(ssl.SSLWantReadError):
        pair.peer.ssl_object.unwrap()
    pair.engine.feed(pair.peer.outgoing.read())
    assert pair.engine.has_plaintext()
    assert pair.engine.read() == b"last words"
    assert pair.engine.has_plaintext()
    assert pair.engine.read() == b""
    assert not pair.engine.has_plaintext()


def likeness(error):
    """Return what a program may look at; the line of `_ssl.c` differs."""
    return type(error), error.errno, error.library, error.reason, str(error).partition(" (_ssl.c")[0]


def failure_of(call):
    with pytest.raises(ssl.SSLError) as caught:
        call()
    return likeness(caught.value)


def plain_failures(contexts, version, spoil, calls):
    """Return the failures of a plain SSLObject, one for each call."""
    server, client = plain_pair(contexts, version)
    spoil(client, server.incoming.write, server.incoming.write_eof)
    methods = {"read": lambda: server.ssl_object.read(10), "write": lambda: server.ssl_object.write(b"data")}
    methods["shut_down"] = server.ssl_object.unwrap
    return [failure_of(methods[call]) for call in calls]


def corrupted(client, feed, feed_eof):
    records = bytearray(client.encrypt(b"data"))
    records[-1] ^= 1
    feed(bytes(records))


def no_record(client, feed, feed_eof):
    feed(b"HTTP/1.1 400 Bad Request\r\n\r\n")


def too_large(client, feed, feed_eof):
    feed(b"\x17\x03\x03\xff\xff" + bytes(100))


def ragged(client, feed, feed_eof):
    feed(client.encrypt(b"data")[:-3])
    feed_eof()


def ended(client, feed, feed_eof):
    feed_eof()


@pytest.mark.parametrize("calls", [["read", "read", "write"], ["read", "shut_down"]], ids=" ".join)
@pytest.mark.parametrize("spoil", [corrupted, no_record, too_large, ragged, ended])
def test_failures_are_those_of_ssl(pristine, version, kind, spoil, calls):
    pristine[0].options &= ~ssl.OP_IGNORE_UNEXPECTED_EOF
    expected = plain_failures(pristine, version, spoil, calls)
    pair = Pair(pristine, version, kind=kind)
    read_all(pair.engine)
    spoil(pair.peer, pair.engine.feed, pair.engine.feed_eof)
    methods = {
        "read": pair.engine.read,
        "write": lambda: pair.engine.write(b"data"),
        "shut_down": pair.engine.shut_down,
    }
    assert [failure_of(methods[call]) for call in calls] == expected


def test_an_end_without_close_notify_may_be_ignored(pristine, version, kind):
    pristine[0].options |= ssl.OP_IGNORE_UNEXPECTED_EOF
    pair = Pair(pristine, version, kind=kind)
    pair.engine.feed_eof()
    assert pair.engine.read() == b""


def test_bytes_before_a_failure_are_returned_first(pristine, version, kind):
    pair = Pair(pristine, version, kind=kind)
    good = pair.peer.encrypt(b"good")
    bad = bytearray(pair.peer.encrypt(b"bad"))
    bad[-1] ^= 1
    pair.engine.feed(good + bytes(bad))
    assert pair.engine.read() == b"good"
    assert pair.engine.has_plaintext()
    # the latter from OpenSSL 3.2 on
    assert failure_of(pair.engine.read)[3] in {"DECRYPTION_FAILED_OR_BAD_RECORD_MAC", "RECORD_LAYER_FAILURE"}
    pair.to_peer()
    with pytest.raises(ssl.SSLError, match="BAD_RECORD_MAC"):
        pair.peer.ssl_object.read(10)


def test_a_write_after_the_shutdown_fails(pair):
    pair.engine.shut_down()
    assert failure_of(lambda: pair.engine.write(b"late"))[3] == "PROTOCOL_IS_SHUTDOWN"


# --- what else a peer may do ---


@pytest.mark.parametrize("of_peer", [0, 1])
def test_keys_are_updated_by_either_side(pristine, of_peer):
    pair, other = Pair(pristine), None
    other = seams.TlsEngine.openssl(pair.peer.ssl_object)
    for engine, peer in ((pair.engine, other), (other, pair.engine)) * 3:
        assert engine.update_key(of_peer) == 1
        engine.write(b"with new keys")
        peer.feed(engine.output())
        assert read_all(peer) == b"with new keys"
        peer.write(b"answered")
        engine.feed(peer.output())
        assert read_all(engine) == b"answered"


def test_a_client_certificate_is_asked_for_after_the_handshake(pristine):
    server, client = pristine
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(server, "post_handshake_auth", True)
        patch.setattr(client, "post_handshake_auth", True)
        patch.setattr(server, "verify_mode", ssl.CERT_OPTIONAL)
        pair = Pair(pristine)
    pair.engine.ssl_object.verify_client_post_handshake()
    pair.peer.incoming.write(pair.send(b"who are you?"))
    assert pair.peer.read_all() == b"who are you?"
    pair.engine.feed(pair.peer.encrypt(b"nobody"))
    assert read_all(pair.engine) == b"nobody"
    assert pair.engine.ssl_object.getpeercert() is None


# --- the program's SSLObject ---


def test_the_ssl_object_answers_as_before(pristine, version):
    server, _ = plain_pair(pristine, version)
    names = ["version", "cipher", "shared_ciphers", "compression", "getpeercert", "selected_alpn_protocol", "pending"]
    before = [getattr(server.ssl_object, name)() for name in names]
    engine = seams.TlsEngine.openssl(server.ssl_object)
    assert engine.ssl_object is server.ssl_object
    assert [getattr(server.ssl_object, name)() for name in names] == before
    assert server.ssl_object.get_channel_binding("tls-unique")
    assert server.ssl_object.server_side


def test_a_programs_own_calls_take_nothing_and_lose_nothing(upgraded):
    upgraded.engine.feed(upgraded.peer.encrypt(b"for the loop"))
    with pytest.raises(ssl.SSLWantReadError):
        upgraded.engine.ssl_object.read(10)
    assert upgraded.engine.read(3) == b"for"
    assert upgraded.engine.ssl_object.read(4) == b" the"
    upgraded.engine.write(b"one ")
    upgraded.engine.ssl_object.write(b"two ")
    upgraded.engine.write(b"three ")
    upgraded.to_peer()
    assert upgraded.peer.read_all() == b"one two three "
    assert upgraded.engine.read() == b" loop"
    with pytest.raises(ssl.SSLWantReadError):
        upgraded.engine.ssl_object.unwrap()
    upgraded.to_peer()
    assert upgraded.peer.read() == b""


def test_the_ssl_object_outlives_the_engine(upgraded):
    ssl_object = upgraded.engine.ssl_object
    upgraded.engine.feed(upgraded.peer.encrypt(b"unread"))
    upgraded.engine.settle()
    upgraded.engine.write(b"unsent")
    upgraded.engine = None
    with pytest.raises(ssl.SSLWantReadError):
        ssl_object.read(10)
    assert ssl_object.write(b"nowhere") == 7
    with pytest.raises(ssl.SSLWantReadError):
        ssl_object.unwrap()
    assert ssl_object.version()


def test_the_engine_outlives_all_others(upgraded):
    gc.collect()
    upgraded.engine.feed(upgraded.peer.encrypt(b"still here"))
    assert upgraded.engine.read() == b"still here"


# --- memory of a loop's engines ---


def test_engines_that_share_memory_never_mix_their_bytes(pristine, version):
    one, two = (Pair(pristine, version) for _ in range(2))
    for turn in range(4):
        one.engine.write(b"one %d " % turn)
        two.engine.write(b"two %d " % turn)
    one.to_peer()
    two.to_peer()
    assert one.peer.read_all() == b"one 0 one 1 one 2 one 3 "
    assert two.peer.read_all() == b"two 0 two 1 two 2 two 3 "


def test_an_engine_that_goes_takes_its_output_along(pristine):
    one, two = (Pair(pristine) for _ in range(2))
    one.engine.write(b"of one")
    one.engine = None
    two.to_peer()
    two.peer.incoming.write(two.send(b"of two"))
    assert two.peer.read_all() == b"of two"


@pytest.mark.parametrize("attribute", ["keylog_filename", "_msg_callback"])
def test_a_context_with_callbacks_keeps_its_memory_bios(pristine, tmp_path, attribute):
    value = str(tmp_path / "keys") if attribute == "keylog_filename" else (lambda *given: None)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pristine[0], attribute, value)
        assert not Pair(pristine).is_upgraded


def test_the_engine_may_be_forced(pristine, monkeypatch):
    sslobject.choose("memory")
    assert not Pair(pristine).is_upgraded
    sslobject.choose("")
    monkeypatch.setenv("PENSTOCK_TLS_ENGINE", "memory")
    assert not Pair(pristine).is_upgraded
    assert sslobject.why_memory() == "PENSTOCK_TLS_ENGINE is memory"
    sslobject.choose("")
    monkeypatch.delenv("PENSTOCK_TLS_ENGINE")
    assert Pair(pristine).is_upgraded


def test_a_connection_before_its_handshake_keeps_its_memory_bios(contexts):
    assert seams.TlsEngine.openssl(Side(contexts[0], True).ssl_object) is None


def test_an_engine_that_failed_in_the_handshake_is_refused(contexts):
    server = Side(contexts[0], True)
    server.incoming.write(b"no TLS at all, by far")
    with pytest.raises(ssl.SSLError):
        server.ssl_object.do_handshake()
    assert seams.TlsEngine.openssl(server.ssl_object) is None


def test_loops_in_two_threads_have_engines_of_their_own(pristine):
    problems = []

    def carry():
        pairs = [Pair(pristine) for _ in range(3)]
        for turn in range(200):
            for at, pair in enumerate(pairs):
                data = b"%d of %d " % (turn, at) * 100
                pair.engine.feed(pair.peer.encrypt(data))
                pair.peer.incoming.write(pair.send(pair.engine.read()))
                if pair.peer.read_all() != data:
                    problems.append((turn, at))

    threads = [threading.Thread(target=carry) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not problems


def test_memory_is_flat_over_many_lives(pristine):

    def live():
        server, client = plain_pair(pristine)
        engine = seams.TlsEngine.openssl(server.ssl_object)
        engine.feed(client.encrypt(b"a request"))
        engine.write(engine.read())
        engine.feed(client.encrypt(b"a second one")[:-4])
        engine.settle()
        engine.write(b"unsent")

    assert growth_bytes(live, LIFE_CYCLES // 10) < 512 * 1024


def growth_bytes(call, times):
    """Return how much the resident memory grows over so many calls, after a tenth of them."""
    for _ in range(times // 10):
        call()
    before = resident_bytes()
    for _ in range(times):
        call()
    return resident_bytes() - before


def resident_bytes():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096
