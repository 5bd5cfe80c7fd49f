"""The options of worker processes: their number, start, health and recycling, over the config's group `workers`."""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from penstock.cli.options import Failure, accepted
from penstock.cli.serving.workerbound import worker_count
from penstock.config.converters import optional, seconds, whole

if TYPE_CHECKING:
    from collections.abc import Callable

    from penstock.config import WorkersConfig

__all__ = ["add_worker_options", "is_supervised", "workers_config"]

NEVER = optional(seconds(zero=False), "never")
MIBIBYTE_BYTES = 2**20
# option -> its key in the config's group
KEYS = {
    "preload": "preload",
    "start_timeout": "start_s",
    "hang_timeout": "hang_s",
    "max_restarts": "max_restarts",
    "limit_max_requests": "max_requests",
    "limit_max_requests_jitter": "max_requests_jitter",
    "max_age": "max_age_s",
    "max_rss": "max_rss_bytes",
}
# they mean something to a single process too
ALSO_SINGLE = ("limit_max_requests", "limit_max_requests_jitter")


def add_worker_options(parser: argparse.ArgumentParser, *, in_help: bool) -> None:
    """Add `--workers` and the options of workers, these in the help if `in_help`.

    The options for requests are uvicorn's, with penstock's names beside them.
    """
    text = "worker processes; auto: the usable cores"
    parser.add_argument("--workers", type=worker_count, metavar="N", help=text)
    add = _adder(parser, in_help=in_help)
    add("--preload", choices=("none", "server", "app"), help="fork workers from a process that has imported this")
    add("--start-timeout", type=_bound, metavar="SECONDS", help="longest start of a worker; default 300; none")
    add("--hang-timeout", type=_bound, metavar="SECONDS", help="kill a worker blocked for so long; default 60; none")
    add("--max-restarts", type=_count_or_none, metavar="N", help="end after more in five minutes; default 20; none")
    requests = "--max-requests", "--limit-max-requests"
    text = "replace a worker after so many; without --workers, end"
    add(*requests, dest="limit_max_requests", type=_count, metavar="N", help=text)
    jitter = "--max-requests-jitter", "--limit-max-requests-jitter"
    text = "plus a random number of up to so many"
    add(*jitter, dest="limit_max_requests_jitter", type=_count_from_0, metavar="N", help=text)
    add("--max-age", type=_bound, metavar="SECONDS", help="replace a worker that is so old")
    add("--max-rss", type=_mebibytes, metavar="MIB", help="replace a worker with more resident memory")


def _adder(parser: argparse.ArgumentParser, *, in_help: bool) -> Callable[..., object]:
    group = parser.add_argument_group("worker processes, with --workers") if in_help else parser

    def add(*names: str, **more: Any) -> object:
        return group.add_argument(*names, **(more if in_help else more | {"help": argparse.SUPPRESS}))

    return add


def is_supervised(options: argparse.Namespace) -> bool:
    """Return whether worker processes are asked for."""
    return bool(options.reload or options.workers is not None)


def workers_config(options: argparse.Namespace, given: WorkersConfig, named: frozenset[str]) -> WorkersConfig:
    """Return the group with the options applied. Raises Failure for an option that needs `--workers`.

    `named` are the keys that the config sets. With `--reload` no hang is looked for otherwise: a debugger may stop it.
    """
    chosen = {name: getattr(options, name) for name in KEYS if getattr(options, name, None) is not None}
    if not is_supervised(options):
        for name in [name for name in chosen if name not in ALSO_SINGLE]:
            raise Failure(f"--{name.replace('_', '-')} needs --workers", code=2)
        return given
    if options.reload and "workers.hang_s" not in named:
        given = replace(given, hang_s=None)
    return replace(given, **{KEYS[name]: _given(value) for name, value in chosen.items()})


class _Never:
    """The text `none`, which is no missing option."""


def _given(value: Any) -> Any:
    return None if isinstance(value, _Never) else value


def _bound(text: str) -> Any:
    return _Never() if text == "none" else accepted(NEVER, text, "a time: seconds, more than 0, or none")


def _count(text: str) -> Any:
    return accepted(whole(1, "requests"), text, "a count: 1 or more")


def _count_from_0(text: str) -> Any:
    return accepted(whole(0, "requests"), text, "a count: 0 or more")


def _count_or_none(text: str) -> Any:
    return _Never() if text == "none" else accepted(whole(0, "restarts"), text, "a count: 0 or more, or none")


def _mebibytes(text: str) -> Any:
    return accepted(whole(1, "MiB"), text, "a size: MiB, 1 or more") * MIBIBYTE_BYTES
