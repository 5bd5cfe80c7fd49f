"""The config of `monitor`: the attach socket of each process, and the web page. No behaviour."""

from __future__ import annotations

from dataclasses import dataclass, field

from penstock.config.base import Group, key
from penstock.config.converters import BOOL, HOST_AND_PORT, TOKEN, optional

__all__ = ["MonitorConfig"]


@dataclass(frozen=True, slots=True)
class MonitorConfig(Group):
    """Views of a running process: the attach socket and the web page."""

    # answer this user's `penstock top` and the other commands on a Unix socket
    attach: bool = key(True, BOOL)
    # let these commands cancel tasks, collect garbage and change limits
    actions: bool = key(False, BOOL)
    # serve the web page there
    page: str | None = key(None, optional(HOST_AND_PORT, "no page"))
    # required of every visitor; beyond loopback one is made if none is given
    page_token: str | None = field(
        default=None, repr=False, metadata={"converter": optional(TOKEN, "none on loopback")}
    )
