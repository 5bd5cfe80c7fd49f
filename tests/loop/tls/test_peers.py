"""Real peers: `openssl s_client` and `s_server`, with key updates, client certificates, renegotiation and stapling."""

import asyncio
import contextlib
import os
import re
import ssl
import subprocess
import threading

import pytest

from tests.support.waiting import until

from ..wire import Recorder, close_server
from .test_records import unread_bytes

VERSIONS = {ssl.TLSVersion.TLSv1_2: "-tls1_2", ssl.TLSVersion.TLSv1_3: "-tls1_3"}


class Command:
    """An `openssl` command, its output read by a thread."""

    def __init__(self, *arguments):
        self.process = subprocess.Popen(
            ["openssl", *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        self.output = b""
        self.thread = threading.Thread(target=self.read)
        self.thread.start()

    def read(self):
        while chunk := os.read(self.process.stdout.fileno(), 1 << 16):
            self.output += chunk

    def type(self, line):
        """Type a line, which is a command if it is one letter."""
        self.process.stdin.write(line)
        self.process.stdin.flush()

    async def until(self, text):
        await until(lambda: text in self.output, told=lambda: f"no {text} in {self.output.decode(errors='replace')}")

    async def command(self, line):
        """Type a command, and wait until it is read: it counts as one only if nothing follows in the same input."""
        self.type(line)
        await until(lambda: not unread_bytes(self.process.stdin.fileno()))

    async def wait(self):
        await until(lambda: self.process.poll() is not None)

    def end(self):
        with contextlib.suppress(OSError):
            self.process.stdin.close()
        self.process.kill()
        self.process.wait()
        self.thread.join()
        self.process.stdout.close()


@pytest.fixture
def openssl():
    """`openssl(*arguments)`: start the command, ended with the test."""
    commands = []

    def start(*arguments):
        commands.append(Command(*arguments))
        return commands[-1]

    yield start
    for command in commands:
        command.end()


class Echo(Recorder):
    def data_received(self, data):
        super().data_received(data)
        self.transport.write(data.upper())


@contextlib.asynccontextmanager
async def served(context):
    """A server that answers in capitals: the arguments that name it to `s_client`, and its protocols."""
    protocols = []

    def make():
        protocols.append(Echo())
        return protocols[-1]

    server = await asyncio.get_running_loop().create_server(make, "127.0.0.1", 0, ssl=context)
    yield ("s_client", "-connect", f"127.0.0.1:{server.sockets[0].getsockname()[1]}"), protocols
    await close_server(server)
    for protocol in protocols:
        await protocol.until_event("lost")


@pytest.mark.parametrize("is_known", [False, True])
async def test_s_client(certificates, openssl, version, is_known):
    context = certificates.server(verify=ssl.CERT_OPTIONAL)
    certificate, key = certificates.files("client")
    own = ("-cert", certificate, "-key", key) if is_known else ()
    async with served(context) as (address, protocols):
        options = ("-CAfile", certificates.authority, "-servername", "localhost", "-verify_return_error")
        client = openssl(*address, *options, VERSIONS[version], *own)
        await client.until(b"Verify return code: 0 (ok)")
        client.type(b"hello\n")
        await client.until(b"HELLO\n")
        peercert = protocols[0].transport.get_extra_info("ssl_object").getpeercert()
        assert (peercert is not None) is is_known
        client.type(b"Q\n")
        await protocols[0].until_event("lost")
        assert protocols[0].error is None
        assert protocols[0].events == ["made", "data", "eof", "lost"]


@pytest.mark.parametrize("command", [b"k\n", b"K\n"], ids=["one way", "both ways"])
async def test_s_client_updates_its_key(certificates, openssl, command):
    async with served(certificates.server()) as (address, protocols):
        client = openssl(*address, "-tls1_3")
        await client.until(b"Verify return code")
        for number in range(3):
            await client.command(command)
            client.type(b"hello %d\n" % number)
            await client.until(b"HELLO %d\n" % number)
        client.type(b"Q\n")
        await protocols[0].until_event("lost")
        assert protocols[0].error is None


async def test_s_client_is_refused_a_renegotiation(certificates, openssl, problems):
    context = certificates.server()
    context.options |= ssl.OP_NO_RENEGOTIATION
    async with served(context) as (address, protocols):
        client = openssl(*address, "-tls1_2")
        await client.until(b"Verify return code")
        client.type(b"hello\n")
        await client.until(b"HELLO\n")
        client.type(b"R\n")
        await client.until(b"no renegotiation")
        await client.wait()
        await protocols[0].until_event("lost")
        assert protocols[0].data == b"hello\n"
    assert problems == []


async def test_s_client_resumes_its_session(certificates, openssl, version, tmp_path):
    async with served(certificates.server()) as (address, protocols):
        for state in ("-sess_out", "-sess_in"):
            client = openssl(*address, VERSIONS[version], state, str(tmp_path / "session"))
            await client.until(b"Verify return code")
            client.type(b"hello\n")
            await client.until(b"HELLO\n")
            assert protocols[-1].transport.get_extra_info("ssl_object").session_reused is (state == "-sess_in")
            client.type(b"Q\n")
            await protocols[-1].until_event("lost")


async def test_s_client_that_asks_for_a_staple_gets_none(certificates, openssl):
    async with served(certificates.server()) as (address, protocols):
        client = openssl(*address, "-status")
        await client.until(b"OCSP response: no response sent")
        client.type(b"Q\n")
        await until(lambda: protocols)
        await protocols[0].until_event("lost")


async def test_s_client_without_the_version_fails(certificates, openssl, problems):
    context = certificates.server()
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    async with served(context) as (address, protocols):
        client = openssl(*address, "-tls1_2")
        await client.wait()
        assert b"Cipher is (NONE)" in client.output
        assert protocols == [] or "made" not in protocols[0].events
        protocols.clear()
    assert problems == []


async def s_server(openssl, certificates, *options):
    """Start `s_server`; return it and its address."""
    certificate, key = certificates.files("localhost")
    server = openssl("s_server", "-accept", "127.0.0.1:0", "-cert", certificate, "-key", key, *options)
    await server.until(b"ACCEPT ")
    await until(lambda: re.search(rb"ACCEPT \S+:\d+\s", server.output))
    port = int(re.search(rb"ACCEPT \S+:(\d+)\s", server.output)[1])
    return server, ("127.0.0.1", port)


async def connected(loop, address, context):
    _, protocol = await loop.create_connection(Recorder, *address, ssl=context, server_hostname="localhost")
    return protocol


async def test_s_server(loop, certificates, openssl, version):
    server, address = await s_server(openssl, certificates, VERSIONS[version])
    protocol = await connected(loop, address, certificates.client())
    protocol.transport.write(b"hello\n")
    await server.until(b"hello\n")
    server.type(b"there\n")
    await protocol.until_bytes(6)
    assert protocol.data == b"there\n"
    server.type(b"q\n")
    await protocol.until_event("lost")
    assert protocol.events == ["made", "data", "eof", "lost"]
    assert protocol.error is None


async def test_s_server_wants_a_certificate(loop, certificates, openssl, version):
    options = ("-Verify", "1", "-CAfile", certificates.authority, "-verify_return_error", VERSIONS[version])
    server, address = await s_server(openssl, certificates, *options)
    protocol = await connected(loop, address, certificates.client("client"))
    protocol.transport.write(b"hello\n")
    await server.until(b"hello\n")
    assert b"CN = client" in server.output
    protocol.transport.abort()
    await protocol.until_event("lost")


@pytest.mark.parametrize("command", [b"k\n", b"K\n"], ids=["one way", "both ways"])
async def test_s_server_updates_its_key(loop, certificates, openssl, command):
    server, address = await s_server(openssl, certificates, "-tls1_3")
    protocol = await connected(loop, address, certificates.client())
    for number in range(3):
        await server.command(command)
        server.type(b"there %d\n" % number)
        await protocol.until_bytes(8 * (number + 1))
        protocol.transport.write(b"hello %d\n" % number)
        await server.until(b"hello %d\n" % number)
    assert protocol.data == b"there 0\nthere 1\nthere 2\n"
    protocol.transport.abort()
    await protocol.until_event("lost")


@pytest.mark.parametrize("is_refused", [False, True])
async def test_s_server_asks_for_a_renegotiation(loop, certificates, openssl, problems, is_refused):
    context = certificates.client()
    if is_refused:
        context.options |= ssl.OP_NO_RENEGOTIATION
    server, address = await s_server(openssl, certificates, "-tls1_2")
    protocol = await connected(loop, address, context)
    protocol.transport.write(b"hello\n")
    await server.until(b"hello\n")
    await server.command(b"r\n")
    if not is_refused:
        server.type(b"there\n")
        await protocol.until_bytes(6)
        assert protocol.data == b"there\n"
        protocol.transport.abort()
    else:
        server.type(b"Q\n")
    await protocol.until_event("lost")
    assert problems == []


async def test_s_server_staples_an_answer(loop, certificates, openssl, tmp_path):
    """A client of Python's does not ask for it; a staple that it did not ask for would be an error."""
    authority, key = certificates.authority, f"{certificates.folder}/authority.key"
    (tmp_path / "index").touch()
    leaf = certificates.files("localhost")[0]
    command = f"ocsp -index {tmp_path}/index -CA {authority} -rsigner {authority} -rkey {key} -issuer {authority}"
    arguments = f"{command} -cert {leaf} -ndays 1 -respout {tmp_path}/staple".split()
    done = await asyncio.to_thread(subprocess.run, ["openssl", *arguments], capture_output=True, check=False)
    if done.returncode or not (tmp_path / "staple").exists():
        pytest.skip("this openssl makes no answer to staple")
    _, address = await s_server(openssl, certificates, "-status_file", str(tmp_path / "staple"))
    protocol = await connected(loop, address, certificates.client())
    protocol.transport.abort()
    await protocol.until_event("lost")
