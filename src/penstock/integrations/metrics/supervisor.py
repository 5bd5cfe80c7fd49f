"""The metric families of a supervisor: its workers by state, their memory, restarts and reloads."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from penstock.integrations.metrics.families import plain_family

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["supervisor_families"]

STATES = ("starting", "serving", "draining")


def supervisor_families(snapshot: Mapping[str, Any]) -> Iterator[list[Any]]:
    """Yield the families of a supervisor's snapshot, as plain data."""
    rows = snapshot["workers"]
    counts = Counter(row["state"] for row in rows)
    by_state = [({"state": state}, counts[state]) for state in STATES]
    yield plain_family("penstock_workers", "Worker processes by state.", "gauge", by_state)
    rss = [({"worker": str(row["number"])}, row["rss_bytes"]) for row in rows if row["rss_bytes"] is not None]
    yield plain_family("penstock_worker_rss_bytes", "Resident memory of a worker process.", "gauge", rss)
    text = "Worker processes that ended without being asked to, or did not start."
    yield plain_family("penstock_worker_restarts", text, "counter", [({}, snapshot["restarts"])])
    text = "The generation of workers that serves; a reload begins one."
    yield plain_family("penstock_worker_generation", text, "gauge", [({}, snapshot["generation"])])
