"""`penstock doctor`: the machine, the resulting config, advice for each weak spot; with a PID, a running process."""

import argparse
import json
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from penstock.cli.machine import Fact, examine
from penstock.cli.measure import Cost, costs_as_json, measure, render_costs
from penstock.cli.options import Failure, LineParser, accepted, check_config, load_config
from penstock.cli.output import write_out
from penstock.cli.workers import Workers, count_workers, render_workers, workers_as_json
from penstock.config import Config
from penstock.config.converters import seconds as seconds_converter
from penstock.config.sources import LANES
from penstock.errors import ConfigError

__all__ = ["main"]

SECONDS = seconds_converter(zero=False)
# a report is sent round
SECRETS = ("monitor.page_token",)


def main(arguments: Sequence[str]) -> int:
    """Print the report as text or JSON. Return 0 in any case: a weak spot is not a failure."""
    options = _parser().parse_args(arguments)
    if options.pid is not None:
        return _check_process(options)
    config = load_config(options)
    facts, workers = [*examine(), *_unusable(config)], count_workers(config.executors)
    costs = measure(config) if options.measure else []
    if options.json:
        write_out(json.dumps(_as_json(facts, config, workers, costs), indent=2, default=str) + "\n")
    else:
        write_out(render(facts, config, workers, costs) + "\n")
    return 0


def _check_process(options: argparse.Namespace) -> int:
    """Observe a running process for some seconds, and print its faults and its figures."""
    # imported here: the report about the machine needs none of it
    from penstock.monitor.checkup import observe
    from penstock.monitor.client import AttachedProcess
    from penstock.monitor.summary import summary, summary_as_json

    try:
        with AttachedProcess(options.pid) as process:
            history = observe(process, options.seconds)
    except OSError as error:
        raise Failure(str(error)) from error
    if options.json:
        write_out(json.dumps(summary_as_json(history, options.seconds), indent=2, default=str) + "\n")
    else:
        write_out(summary(history, options.seconds) + "\n")
    return 0


def _unusable(config: Config) -> list[Fact]:
    """Return the error of a config that cannot work on this machine, as `run` and `serve` report it."""
    try:
        check_config(config)
    except ConfigError as error:
        return [Fact("config", "unusable", "cannot be used here", str(error))]
    return []


def _parser() -> LineParser:
    parser = LineParser(
        prog="penstock doctor",
        usage="penstock doctor [options] [PID]",
        description="Report the machine, the resulting config, and advice for each weak spot. With a PID: observe this "
        "running process for some seconds, and report its faults, the next step for each, and its figures.",
    )
    parser.add_argument("pid", nargs="?", type=int, metavar="PID", help="a running penstock process")
    parser.add_argument(
        "--seconds", type=_seconds, default=3.0, metavar="S", help="with a PID: observe it for this time (3)"
    )
    parser.add_argument("--json", action="store_true", help="print it as JSON")
    parser.add_argument("--measure", action="store_true", help="measure the cost of task telemetry; takes seconds")
    parser.add_config_options()
    return parser


def _seconds(text: str) -> float:
    seconds: float = accepted(SECONDS, text, "seconds above 0")
    return seconds


def render(facts: Sequence[Fact], config: Config, workers: dict[str, Workers], costs: Sequence[Cost] = ()) -> str:
    """Return the report as text: facts, workers of each lane, measured costs, changed config keys, advice."""
    width = max(len(fact.name) for fact in facts)
    lines = ["machine"]
    lines += [f"  {fact.name:{width}}  {fact.text}" for fact in facts]
    lines += ["", "lanes", *render_workers(workers)]
    if costs:
        lines += ["", *render_costs(costs)]
    changed = deviations(config)
    lines += ["", "config" if changed else "config: all defaults"]
    lines += [f"  {key} = {value!r}  (default {default!r})" for key, (value, default) in changed.items()]
    advice = [fact for fact in facts if fact.advice]
    lines += ["", "advice" if advice else "advice: none"]
    lines += [f"  {fact.name}: {fact.advice}" for fact in advice]
    return "\n".join(lines)


def deviations(config: Config) -> dict[str, tuple[Any, Any]]:
    """Return each key that differs from its default, with value and default; a lane as its text."""
    changed = {}
    for group in fields(config):
        chosen, default = getattr(config, group.name), getattr(Config(), group.name)
        for item in fields(chosen):
            key, pair = f"{group.name}.{item.name}", (getattr(chosen, item.name), getattr(default, item.name))
            if pair[0] != pair[1]:
                changed[key] = _as_text(key, pair[0]), _as_text(key, pair[1])
    return changed


def _as_text(key: str, value: Any) -> Any:
    if key in SECRETS and value is not None:
        return "(hidden)"
    if key not in LANES:
        return value
    try:
        return LANES[key].write(value)
    except ValueError:
        # an executor object
        return value


def _as_json(
    facts: Sequence[Fact], config: Config, workers: dict[str, Workers], costs: Sequence[Cost]
) -> dict[str, Any]:
    report: dict[str, Any] = {
        "machine": {fact.name: fact.value for fact in facts},
        "lanes": workers_as_json(workers),
        "config": {key: value for key, (value, _) in deviations(config).items()},
        "advice": {fact.name: fact.advice for fact in facts if fact.advice},
    }
    return report | {"telemetry": costs_as_json(costs)} if costs else report
