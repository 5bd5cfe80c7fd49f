"""The properties of a simulated connection: latency, bandwidth, buffers and faults."""

from __future__ import annotations

import math
from dataclasses import dataclass

__all__ = ["Link"]

BUFFER_BYTES = 256 * 1024


@dataclass(frozen=True, slots=True)
class Link:
    """The properties of a connection, the same in both directions.

    latency_s: one way, for bytes, ends, resets and the handshake; up to `jitter_s` more, drawn from the seed (half of
        it without a seed). Bytes never overtake each other.
    bytes_per_s: bandwidth.
    buffer_bytes: most bytes in flight, or received and not read; beyond it the sender's own buffer grows and its flow
        control begins.
    segment_bytes: most bytes of one write or read (with a seed: a number drawn up to it), so that writes are partial
        and messages arrive in pieces.
    reset_after_bytes: the connection is reset when so many bytes have been sent, both directions together.
    client_reads: False for a client that never reads.

    Raises ValueError for a value out of range.
    """

    latency_s: float = 0.0
    jitter_s: float = 0.0
    bytes_per_s: float = math.inf
    buffer_bytes: int = BUFFER_BYTES
    segment_bytes: int | None = None
    reset_after_bytes: int | None = None
    client_reads: bool = True

    def __post_init__(self) -> None:
        if not (self.latency_s >= 0 and self.jitter_s >= 0):
            raise ValueError(f"latency_s={self.latency_s!r}, jitter_s={self.jitter_s!r}: seconds, 0 or more")
        if not self.bytes_per_s > 0:
            raise ValueError(f"bytes_per_s={self.bytes_per_s!r}: above 0")
        if self.buffer_bytes < 1 or (self.segment_bytes is not None and self.segment_bytes < 1):
            raise ValueError(f"buffer_bytes={self.buffer_bytes!r}, segment_bytes={self.segment_bytes!r}: 1 or more")
