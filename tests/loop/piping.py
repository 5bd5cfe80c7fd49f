"""Both ends of a pipe for the tests of pipe transports: a recorder on a transport, and a plain file as its peer."""

import asyncio
import os
import socket

from .wire import Recorder, pattern


def pipe_files(kind="fifo"):
    """The reading and the writing end, as unbuffered files."""
    if kind == "socket":
        one, other = socket.socketpair()
        return os.fdopen(one.detach(), "rb", 0), os.fdopen(other.detach(), "wb", 0)
    read_end, write_end = os.pipe()
    return os.fdopen(read_end, "rb", 0), os.fdopen(write_end, "wb", 0)


async def reading(loop, protocol=None, kind="fifo"):
    """A read transport with a recorder, and the plain file at the other end."""
    reader, writer = pipe_files(kind)
    transport, protocol = await loop.connect_read_pipe(lambda: protocol or Recorder(), reader)
    return transport, protocol, writer


async def writing(loop, protocol=None, kind="fifo"):
    reader, writer = pipe_files(kind)
    transport, protocol = await loop.connect_write_pipe(lambda: protocol or Recorder(), writer)
    return transport, protocol, reader


def fill(transport, size=1 << 20):
    """Write more than the kernel takes."""
    transport.write(pattern(size))
    assert transport.get_write_buffer_size() > 0


async def drain(reader):
    """Read until the end, without blocking the loop."""
    return await asyncio.to_thread(reader.read)
