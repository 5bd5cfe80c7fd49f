"""A generation of workers: those that were started by the same orders."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from penstock.runtime.supervisor.worker.orders import Orders
    from penstock.runtime.supervisor.worker.template import TemplateProcess

__all__ = ["Generation"]


@dataclass(slots=True, eq=False)
class Generation:
    """The orders of a generation, and the process that its workers are forked from, if any."""

    number: int
    orders: Orders
    template: TemplateProcess | None = None
    # a template that could not preload
    failed_template: TemplateProcess | None = None
    # whether a worker of it has ever started
    has_started: bool = False
