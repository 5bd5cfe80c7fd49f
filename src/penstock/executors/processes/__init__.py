"""The lane of worker processes."""

from typing import TYPE_CHECKING

from penstock.lazy import lazy_names

if TYPE_CHECKING:
    from penstock.executors.processes.lane import ProcessLane

__all__ = ["ProcessLane"]

if not TYPE_CHECKING:
    __getattr__, __dir__ = lazy_names(__name__, {"penstock.executors.processes.lane": ("ProcessLane",)})
