"""Whole lives of an event loop, one after the other: a TLS server, clients, upgraded streams, a file, a child process.

    python -m tests.soak.lives --count 500 [--loop asyncio]

After the first lives, which fill caches, nothing may grow: descriptors, threads, children, objects, memory.
"""

import argparse
import asyncio
import gc
import os
import ssl
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

from penstock.loop import EventLoop

__all__ = ["Growth", "live", "lives"]

MESSAGE = bytes(200_000)
PAGE_BYTES = os.sysconf("SC_PAGESIZE")
Contexts = tuple[ssl.SSLContext, ssl.SSLContext]


class Growth(NamedTuple):
    """The growth from the first to the last measured life."""

    descriptors: int
    threads: int
    children: int
    objects: int
    rss_bytes: int


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer until the client ends."""
    while data := await reader.read(1 << 16):
        writer.write(data)
        await writer.drain()
    writer.close()
    await writer.wait_closed()


async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Send a message, receive it back, and end the connection."""
    writer.write(MESSAGE)
    await writer.drain()
    assert await reader.readexactly(len(MESSAGE)) == MESSAGE
    writer.close()
    await writer.wait_closed()


async def live(contexts: Contexts, path: str) -> None:
    """Use the running loop for one of everything, and leave nothing open."""

    async def upgrade(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(b"go\n")
        await writer.start_tls(contexts[0])
        await echo(reader, writer)

    loop = asyncio.get_running_loop()
    server = await asyncio.start_server(echo, "127.0.0.1", 0, ssl=contexts[0])
    upgrader = await asyncio.start_server(upgrade, "127.0.0.1", 0)
    address, other = server.sockets[0].getsockname(), upgrader.sockets[0].getsockname()
    for _ in range(2):
        await talk(*await asyncio.open_connection(*address, ssl=contexts[1], server_hostname="localhost"))

    reader, writer = await asyncio.open_connection(*other)
    writer.write(b"starttls\n")
    await reader.readline()
    await writer.start_tls(contexts[1], server_hostname="localhost")
    await talk(reader, writer)

    reader, writer = await asyncio.open_connection(*address, ssl=contexts[1], server_hostname="localhost")
    with open(path, "rb") as file:
        await asyncio.gather(loop.sendfile(writer.transport, file), reader.readexactly(len(MESSAGE)))
    writer.transport.abort()

    child = await asyncio.create_subprocess_exec("cat", stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    output, _ = await child.communicate(MESSAGE)
    assert output == MESSAGE
    for each in (server, upgrader):
        each.close()
        await each.wait_closed()


def thread_count() -> int:
    """Count the kernel's threads, once those whose Python code has ended are gone; they need a moment for it."""
    until_s = time.monotonic() + 2
    while True:
        count = len(os.listdir("/proc/self/task"))
        if count <= len(threading.enumerate()) or time.monotonic() > until_s:
            return count
        time.sleep(0.005)


def counts() -> Counter[str]:
    for thread in threading.enumerate():
        if "waitpid" in thread.name:  # asyncio's, which ends after the child
            thread.join()
    gc.collect()
    children = Path(f"/proc/self/task/{threading.get_native_id()}/children")
    return Counter(
        descriptors=len(os.listdir("/proc/self/fd")),
        threads=thread_count(),
        children=len(children.read_text().split()) if children.exists() else 0,
        objects=len(gc.get_objects()),
        rss_bytes=int(Path("/proc/self/statm").read_text().split()[1]) * PAGE_BYTES,
    )


def lives(factory: Any, contexts: Contexts, count: int, first: int) -> Growth:
    """Run `first` lives, then `count` more; return the growth over these."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(MESSAGE)
        file.flush()
        before: Counter[str] = Counter()
        for number in range(first + count):
            if number == first:
                before = counts()
            with asyncio.Runner(loop_factory=factory) as runner:
                runner.run(asyncio.wait_for(live(contexts, file.name), 60))
        after = counts()
    return Growth(**{name: after[name] - before[name] for name in Growth._fields})


def make_contexts(folder: str) -> Contexts:
    """Return a server's and a client's context around a new certificate."""
    key, certificate = f"{folder}/key.pem", f"{folder}/certificate.pem"
    command = (
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost "
        f"-addext subjectAltName=DNS:localhost -keyout {key} -out {certificate}"
    )
    subprocess.run(command.split(), check=True, capture_output=True)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(certificate, key)
    return server, ssl.create_default_context(cafile=certificate)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--loop", choices=["penstock", "asyncio"], default="penstock")
    options = parser.parse_args()
    warnings.simplefilter("error")
    factory = EventLoop if options.loop == "penstock" else asyncio.SelectorEventLoop
    with tempfile.TemporaryDirectory() as folder:
        growth = lives(factory, make_contexts(folder), options.count, first=100)
    print(options.loop, options.count, "lives:", growth)
    sys.exit(any(growth[:3]) or growth.objects > 100 or growth.rss_bytes > 16_000 * options.count)


if __name__ == "__main__":
    main()
