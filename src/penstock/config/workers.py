"""The config of `workers`: health, restarts and recycling of the worker processes of `penstock serve`. No behaviour."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from penstock.config.base import Group, key
from penstock.config.converters import choice, optional, seconds, whole

__all__ = ["WorkersConfig"]


@dataclass(frozen=True, slots=True)
class WorkersConfig(Group):
    """Worker processes of `penstock serve --workers`: their start, health, restarts and recycling."""

    # none: each worker is a fresh process. server: forked from a process that has imported penstock and uvicorn. app:
    # forked from one that has imported the application too
    preload: Literal["none", "server", "app"] = key("none", choice("none", "server", "app"))
    # a worker that has not started within so long is killed, and its start has failed
    start_s: float | None = key(300.0, optional(seconds(zero=False), "no bound"))
    # a worker whose loop is blocked by one callback for so long, or that is stopped, is killed and replaced
    hang_s: float | None = key(60.0, optional(seconds(zero=False), "never"))
    # with more crashes and failed starts within five minutes, the server ends, unless a worker has served for a minute
    max_restarts: int | None = key(20, optional(whole(0, "restarts"), "no bound"))
    # a worker is replaced after so many requests, plus a random number of up to max_requests_jitter
    max_requests: int | None = key(None, optional(whole(1, "requests"), "never"))
    max_requests_jitter: int = key(0, whole(0, "requests"))
    # a worker is replaced when it is so old; each worker's bound is up to a tenth longer, by chance
    max_age_s: float | None = key(None, optional(seconds(zero=False), "never"))
    # a worker is replaced when its resident memory is larger
    max_rss_bytes: int | None = key(None, optional(whole(1, "bytes"), "never"))
