"""The view of connections: a row for each loop."""

from __future__ import annotations

from typing import TYPE_CHECKING

from penstock.monitor.texts import printable
from penstock.monitor.top.columns import TopColumn, TopRow
from penstock.monitor.top.formats import amount, counts_text, memory

if TYPE_CHECKING:
    from penstock.monitor.figures import LoopRates
    from penstock.monitor.top.state import TopState

__all__ = ["COLUMNS", "connection_rows"]

COLUMNS = (
    TopColumn("loop", "loop", "the loop's name; before it the worker's number", 10, stretch=1, is_number=False),
    TopColumn("streams", "streams", "connections of TCP and of Unix sockets that are open", 8, has_trend=True),
    TopColumn("listeners", "listen", "sockets that accept connections", 7),
    TopColumn("datagrams", "dgrams", "datagram sockets", 7, rank=3),
    TopColumn("pipes", "pipes", "pipes, as to child processes", 6, rank=2),
    TopColumn("other", "other", "descriptors that the program watches by itself", 6, rank=4),
    TopColumn("buffered", "buffer", "bytes that wait to be sent", 8, has_trend=True),
    TopColumn("reads", "defer-rd", "connections that are not read from now, for the loop is overloaded", 9, rank=1),
    TopColumn("accepts", "defer-ac", "listeners that do not accept now, for the loop is overloaded", 9, rank=1),
    TopColumn("shed", "unread", "clients that were closed lately before their request was read", 7, has_trend=True),
)


def connection_rows(state: TopState) -> list[TopRow]:
    """Return a row for each loop."""
    figures, process = state.figures, state.figures.process
    most = "" if process.descriptor_limit is None else f" of {amount(process.descriptor_limit)}"
    details = (
        f"clients lost lately: {counts_text(figures.disconnects)}",
        f"refused lately: {counts_text(figures.sheds)}",
        f"descriptors {process.descriptors}{most}",
    )
    return [_row(loop, details) for loop in figures.loops]


def _row(loop: LoopRates, details: tuple[str, ...]) -> TopRow:
    kinds = ("streams", "listeners", "datagrams", "pipes", "other")
    numbers: dict[str, float] = {kind: loop.connections[kind] for kind in kinds if kind in loop.connections}
    overload = loop.overload
    for key, name in (("reads", "deferred_reads"), ("accepts", "deferred_accepts"), ("shed", "shed_unread")):
        if name in overload:
            numbers[key] = overload[name]
    cells = {key: amount(value) for key, value in numbers.items()}
    cells |= {"loop": printable(loop.name), "buffered": memory(loop.bytes_buffered)}
    if loop.bytes_buffered is not None:
        numbers["buffered"] = loop.bytes_buffered
    is_deferring = any(numbers.get(key) for key in ("reads", "accepts", "shed"))
    return TopRow(loop.name, cells, numbers, "warn" if is_deferring else "", details)
