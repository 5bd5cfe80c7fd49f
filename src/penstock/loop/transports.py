"""Functions on the transports of any loop and layer, so that a program tests no types."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from penstock.loop.native import native_core

if TYPE_CHECKING:
    import asyncio

__all__ = ["gather_writes", "native_transport", "segment_datagrams", "transports_of"]


def native_transport(transport: Any) -> Any:
    """Return the native transport itself, or the one that TLS runs over; None on asyncio's own loop."""
    transport = getattr(getattr(transport, "_ssl_protocol", None), "_transport", transport)
    return transport if hasattr(transport, "gather_writes") else None


def gather_writes(transport: asyncio.BaseTransport) -> bool:
    """Send an answer's header and body in one system call, from now on, where the transport can.

    The first `write` after data has come in then waits for the second one, and both leave together. The wait ends at
    the latest with the callback or task step that wrote; `close`, `abort`, `write_eof`, an exception out of the loop
    and `get_extra_info("socket")` end it too. Every other write leaves at once. A protocol that is set later asks anew.
    A program that has both parts at hand needs none of this: `writelines` is one system call.

    Return False, and change nothing, for a transport that is not penstock's own: it sends each write by itself.
    """
    native = native_transport(transport)
    if native is not None:
        native.gather_writes()
    return native is not None


def segment_datagrams(transport: asyncio.BaseTransport, segment_bytes: int) -> bool:
    """Have the kernel split what `sendto` gets into datagrams of `segment_bytes`, from now on, where it can.

    `sendto(data)` then sends up to 64 datagrams, of up to 64 KiB together, in one step; the last one may be shorter. A
    `segment_bytes` of 0 ends it. Datagrams that come in are joined by the kernel for one system call, and delivered one
    by one all the same.

    Return False for a transport that is not penstock's own or no UDP socket, and where the kernel cannot: then one
    `sendto` still sends one datagram.
    """
    segment = getattr(transport, "segment_datagrams", None)
    return segment is not None and bool(segment(segment_bytes))


def transports_of(loop: Any) -> list[Any]:
    """Return the transports of asyncio's or penstock's loop; of a native loop, its watches and listeners too."""
    core = native_core(loop)
    return list(loop._transports.values() if core is None else core.sources().values())
