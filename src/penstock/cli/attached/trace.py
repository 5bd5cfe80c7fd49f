"""`penstock trace`: record every step of a process for some seconds, as a trace for Perfetto."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from penstock.cli.attached import cells
from penstock.cli.attached.partial import is_partial, partial_reason
from penstock.cli.attached.target import ANSWER_S, ask, parsed, parser_of, trace_seconds, write_answer, write_lines
from penstock.cli.options import Failure
from penstock.cli.output import write_out

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["main"]


def main(arguments: Sequence[str]) -> int:
    """Write the trace to a file and print its name."""
    parser = parser_of("trace", "[options] [PID]", "Record every step for some seconds, for ui.perfetto.dev.")
    parser.add_argument("--seconds", metavar="S", type=trace_seconds, default=5.0, help="default 5, at most 60")
    parser.add_argument("-o", "--output", metavar="FILE", help="default trace-PID.json; - is stdout")
    options = parsed(parser, arguments)
    answer = ask(options.pid, "trace", seconds=options.seconds, within_s=options.seconds + ANSWER_S)
    if is_partial(answer):
        raise Failure(f"process {options.pid} was not traced: {partial_reason(answer)}")
    text = json.dumps(answer.get("trace"))
    if options.output == "-":
        write_out(text + "\n")
        return 0
    path = options.output or f"trace-{options.pid}.json"
    _write(path, text)
    _report(options.json, {"file": path, "events": answer.get("events"), "bytes": len(text)})
    return 0


def _write(path: str, text: str) -> None:
    try:
        Path(path).write_text(text)
    except OSError as error:
        raise Failure(f"cannot write {path}: {error.strerror or error}") from error


def _report(as_json: bool, facts: dict[str, Any]) -> None:
    if as_json:
        write_answer(facts)
    else:
        write_lines([f"{facts['file']}: {cells.count(facts['events'])} events, {facts['bytes']:,} bytes"])
