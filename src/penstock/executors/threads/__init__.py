"""The lane of threads."""

from typing import TYPE_CHECKING

from penstock.lazy import lazy_names

if TYPE_CHECKING:
    from penstock.executors.threads.lane import ThreadLane

__all__ = ["ThreadLane"]

if not TYPE_CHECKING:
    __getattr__, __dir__ = lazy_names(__name__, {"penstock.executors.threads.lane": ("ThreadLane",)})
