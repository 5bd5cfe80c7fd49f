"""The view of gates: a row for each gate."""

from __future__ import annotations

from typing import TYPE_CHECKING

from penstock.monitor.texts import printable
from penstock.monitor.top.columns import TopColumn, TopRow
from penstock.monitor.top.formats import amount, counts_text, per_second, short_s

if TYPE_CHECKING:
    from penstock.monitor.figures import GateRates
    from penstock.monitor.top.state import TopState

__all__ = ["COLUMNS", "gate_rows"]

COLUMNS = (
    TopColumn("gate", "gate", "the gate's name", 10, stretch=1, is_number=False),
    TopColumn("state", "state", "open, FULL: requests wait, or SHED: requests are refused", 5, is_number=False),
    TopColumn("inflight", "in", "requests that were admitted and have not finished", 5, has_trend=True),
    TopColumn("limit", "limit", "the most requests in the gate now; - is unbounded", 6, has_trend=True),
    TopColumn("queued", "queue", "requests that wait at the gate", 6, has_trend=True),
    TopColumn("oldest", "oldest", "the longest wait of a request that waits now", 6, rank=3, has_trend=True),
    TopColumn("good", "good/s", "requests that finished in a second: the goodput", 7, has_trend=True),
    TopColumn("sheds", "shed/s", "requests that were refused in a second", 7, has_trend=True),
    TopColumn("wait", "wait99", "wait at the gate, 99th percentile", 7, rank=2, has_trend=True),
    TopColumn("service", "run p99", "from admission to the end, 99th percentile", 7, rank=1, has_trend=True),
    TopColumn("reason", "limit by", "why the limit has its value", 10, rank=4, stretch=1, is_number=False),
)


def gate_rows(state: TopState) -> list[TopRow]:
    """Return a row for each gate."""
    return [_row(gate) for gate in state.figures.gates]


def _row(gate: GateRates) -> TopRow:
    numbers: dict[str, float] = {
        "inflight": gate.inflight,
        "queued": gate.queued,
        "oldest": gate.oldest_wait_s,
        "good": gate.goodput_per_s,
        "sheds": gate.sheds_per_s,
        "wait": gate.wait.p99_s,
        "service": gate.service.p99_s,
    }
    if gate.limit is not None:
        numbers["limit"] = gate.limit
    state = "SHED" if gate.sheds_per_s else "FULL" if gate.queued else "open"
    cells = {"gate": printable(gate.name), "state": state, "reason": printable(gate.limit_reason or "-")}
    cells |= {key: _text(key, value) for key, value in numbers.items()}
    cells.setdefault("limit", "-")
    return TopRow(gate.name, cells, numbers, "warn" if state != "open" else "", _details(gate))


def _text(key: str, value: float) -> str:
    if key in ("oldest", "wait", "service"):
        return short_s(value)
    return per_second(value) if key in ("good", "sheds") else amount(value)


def _details(gate: GateRates) -> tuple[str, ...]:
    most = "" if gate.max_queued is None else f" of {amount(gate.max_queued)}"
    return (
        f"limit {amount(gate.limit)} at scale {gate.scale:.2f}   {printable(gate.limit_reason or 'fixed')}",
        f"queue {gate.queued}{most}   oldest {short_s(gate.oldest_wait_s)}   streams {gate.streams}",
        (
            f"wait p50 {short_s(gate.wait.p50_s)}, p99 {short_s(gate.wait.p99_s)}   "
            f"run p50 {short_s(gate.service.p50_s)}, p99 {short_s(gate.service.p99_s)}"
        ),
        f"refused lately: {counts_text(gate.sheds)}",
    )
