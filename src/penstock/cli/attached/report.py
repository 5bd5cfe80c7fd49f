"""`penstock report`: one HTML file about a running process or a trace."""

from __future__ import annotations

import os
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from penstock.cli.attached.target import trace_seconds
from penstock.cli.options import LineParser
from penstock.cli.output import Failure, write_out
from penstock.monitor.client import AttachedProcess
from penstock.monitor.report.document import report_html
from penstock.monitor.report.material import Material
from penstock.monitor.report.sampling import sampled
from penstock.monitor.report.trace import read_trace

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

__all__ = ["main"]

DEFAULT_PATH = "penstock-report.html"
DEFAULT_S = 10.0


def main(arguments: Sequence[str]) -> int:
    """Write the report, and print its path and the faults. Return the exit code."""
    options = _parser().parse_args(arguments)
    material = _of_process(options) if options.target.isdigit() else _of_trace(options.target)
    page = report_html(material)
    _save(options.output, page)
    write_out(f"{material.verdict()}\n{options.output}: {len(page.encode()):,} bytes\n")
    return 0


def _parser() -> LineParser:
    parser = LineParser(
        prog="penstock report",
        usage="penstock report PID|TRACE.json [-o FILE] [--seconds S]",
        description="Write one HTML file about a running process or a trace: its faults, the findings with the two "
        "seconds before each, charts and tables. It needs no network and no script, and has at most 5 MB.",
    )
    parser.add_argument(
        "target", metavar="PID|TRACE.json", help="a process, as 'penstock ps' shows it, or a trace file"
    )
    parser.add_argument("-o", "--output", metavar="FILE", default=DEFAULT_PATH, help=f"default: {DEFAULT_PATH}")
    parser.add_argument(
        "--seconds",
        metavar="S",
        type=trace_seconds,
        default=DEFAULT_S,
        help="observe for this time, at most 60; default 10",
    )
    return parser


def _of_process(options: argparse.Namespace) -> Material:
    pid = int(options.target)
    if sys.stderr is not None and sys.stderr.isatty():
        print(f"observing process {pid} for {options.seconds:g} s", file=sys.stderr)
    try:
        return sampled(lambda: AttachedProcess(pid), pid, options.seconds)
    except ProcessLookupError as error:
        raise Failure(str(error), code=2) from error
    except OSError as error:
        raise Failure(str(error)) from error


def _of_trace(path: str) -> Material:
    try:
        return Material.of_trace(read_trace(path), f"trace {os.path.basename(path)}", time.time())
    except OSError as error:
        raise Failure(f"cannot read {path}: {error.strerror or error}", code=2) from error


def _save(path: str, page: str) -> None:
    """Write the file; it is complete or as it was before."""
    part = f"{path}.{os.getpid()}.part"
    try:
        with open(part, "w", encoding="utf-8") as stream:
            stream.write(page)
        os.replace(part, path)
    except OSError as error:
        with suppress(OSError):
            os.unlink(part)
        raise Failure(f"cannot write {path}: {error.strerror or error}") from error
