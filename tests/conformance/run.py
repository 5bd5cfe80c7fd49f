"""`make conformance`: CPython's own test_asyncio, run in place on the loops that penstock's own builder makes.

First all of it with penstock's default config, then the modules that touch the loop most with everything turned on. A
module is a process; what penstock does not pass runs on stock asyncio too, and verdict.py says what counts. A test that
fails only beside others is run once more alone and reported as flaky. Exit 0: nothing fails that stock asyncio passes.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path

from process import Outcome, child_environment, run_module
from verdict import ListError, Verdict, check_list, judge, load_expected

# Modules whose tests make no loop worth the name, or whose time is spent in something else than a loop.
NOT_IN_SHORT = {"test_futures", "test_futures2", "test_locks", "test_pep492", "test_tools", "test_ssl"}
SLOWEST_FIRST = ["test_tasks", "test_events", "test_ssl", "test_subprocess", "test_sendfile", "test_unix_events"]
# The configs of the passes, as variables. Bounds that a test reaches would change what it tests: they are wide.
CONFIGS: dict[str, dict[str, str]] = {
    "default": {},
    "everything": {
        "PENSTOCK_SIGNALS_DRAIN_S": "10",
        "PENSTOCK_SIGNALS_DUMP": "true",
        "PENSTOCK_TASKS_LEVEL": "trace",
        "PENSTOCK_TASKS_CHECK_S": "0.5",
        "PENSTOCK_PRESSURE_LAG_HIGH_S": "0.05",
        "PENSTOCK_PRESSURE_MAX_CONNECTIONS": "10000",
        "PENSTOCK_PRESSURE_MAX_TASKS": "1000000",
        "PENSTOCK_PRESSURE_BUFFER_BYTES": "1000000000",
        "PENSTOCK_PRESSURE_SLOW_READER_S": "60",
        "PENSTOCK_PRESSURE_RECEIVE_S": "60",
        "PENSTOCK_PRESSURE_IDLE_S": "60",
        "PENSTOCK_EXECUTORS_LANES": "jobs=processes workers=1 min_workers=1",
    },
}
DETAIL_LINES = 25
SHOW_LOOP = """
import penstock.loop as p
print(("native" if p.NATIVE else "pure") + f" {p.EventLoop.__module__}.{p.EventLoop.__qualname__} in {p.__file__}")
"""

Outcomes = dict[str, Outcome]


def modules_of_interpreter() -> list[str]:
    """The names of the test modules that this interpreter ships, the slowest first."""
    spec = find_spec("test")
    folder = Path(spec.origin).parent / "test_asyncio" if spec and spec.origin else None
    if folder is None or not folder.is_dir():
        raise SystemExit(
            f"conformance: {sys.executable} ships no test.test_asyncio: install its test package "
            f"(Debian: libpython{sys.version_info[0]}.{sys.version_info[1]}-testsuite)"
        )
    names = [path.stem for path in sorted(folder.glob("test_*.py"))]
    return sorted(names, key=lambda name: SLOWEST_FIRST.index(name) if name in SLOWEST_FIRST else len(SLOWEST_FIRST))


def choose_modules(arguments: argparse.Namespace, config: str) -> list[str]:
    known = modules_of_interpreter()
    unknown = [name for name in arguments.module if name not in known]
    if unknown:
        raise SystemExit(f"conformance: no module {unknown[0]!r} in test.test_asyncio; there are {', '.join(known)}")
    if arguments.module:
        return list(arguments.module)
    short = arguments.short or config != "default"
    return [name for name in known if not (short and name in NOT_IN_SHORT)]


def run_all(modules: list[str], jobs: int, environment: dict[str, str], left_out: Iterable[str]) -> dict[str, Outcomes]:
    """Outcomes by loop, "penstock" and "asyncio"."""
    outcomes: dict[str, Outcomes] = {"penstock": {}, "asyncio": {}}
    with ThreadPoolExecutor(jobs) as executor:
        runs = [(module, executor.submit(run_on_both, module, environment, left_out)) for module in modules]
        for module, run in runs:
            ours, stock, took_s = run.result()
            outcomes["penstock"].update(ours)
            outcomes["asyncio"].update(stock)
            print(f"  {module:24} {len(ours):5} tests, {len(stock):3} on asyncio too {took_s:7.1f} s", flush=True)
    return outcomes


def run_on_both(module: str, environment: dict[str, str], left_out: Iterable[str]) -> tuple[Outcomes, Outcomes, float]:
    """Outcomes on penstock, those of stock asyncio for what penstock did not pass, and the seconds that took."""
    began_s = time.monotonic()
    ours = run_module(module, "penstock", environment, left_out=left_out)
    unsettled = [name for name, outcome in ours.items() if outcome.outcome != "passed"]
    stock: Outcomes = {}
    if unsettled:
        # the name of a class's or a module's set-up is no test that could be chosen: then all of the module runs
        only = unsettled if all(" " not in name for name in unsettled) else []
        stock = run_module(module, "asyncio", environment, only)
    return ours, stock, time.monotonic() - began_s


def rerun_alone(names: Iterable[str], environment: dict[str, str]) -> Iterator[str]:
    """The names of those failed tests that pass in a process of their own."""
    for name in names:
        module = name.partition(".")[0]
        if run_module(module, "penstock", environment, [name]).get(name, Outcome("absent")).outcome == "passed":
            yield name


def settle_flaky(verdict: Verdict, ours: Outcomes, environment: dict[str, str]) -> list[str]:
    plain = [name for name in verdict.failed if ours.get(name, Outcome("absent")).outcome == "failed"]
    flaky = list(rerun_alone(plain, environment))
    for name in flaky:
        del verdict.failed[name]
        verdict.passed.append(name)
    return flaky


def print_failures(verdict: Verdict, complaints: list[str], flaky: list[str]) -> None:
    for name, why in verdict.failed.items():
        lines = why.splitlines()
        shown = lines if len(lines) <= DETAIL_LINES else [lines[0], "...", *lines[-DETAIL_LINES:]]
        print(f"\nFAIL {name}: " + "\n     ".join(shown))
    for name in flaky:
        print(f"flaky: {name} failed beside others and passed alone")
    for complaint in complaints:
        print(f"ERROR {complaint}")


def print_summary(verdict: Verdict, complaints: list[str], ours: Outcomes, took_s: float) -> None:
    on_loop = sum(outcome.on_loop for outcome in ours.values())
    print(
        f"\nPython {sys.version.split()[0]}: {len(ours)} tests in {took_s:.0f} s, {on_loop} made a loop of their own; "
        f"{len(verdict.expected)} expected failures, {len(verdict.not_counted)} that stock asyncio fails too"
    )
    failed = len(verdict.failed) + len(complaints)
    print(f"{len(verdict.passed)} passed, {failed} failed, {len(verdict.skipped)} skipped", flush=True)


def write_json(path: str, passes: dict[str, tuple[dict[str, Outcomes], Verdict]]) -> None:
    document: dict[str, object] = {"python": sys.version}
    for config, (outcomes, verdict) in passes.items():
        plain = {loop: {name: asdict(outcome) for name, outcome in found.items()} for loop, found in outcomes.items()}
        document[config] = {"outcomes": plain, "verdict": asdict(verdict)}
    Path(path).write_text(json.dumps(document, indent=1), encoding="utf-8")


def describe_loop(environment: dict[str, str]) -> str:
    probe = subprocess.run(
        [sys.executable, "-c", SHOW_LOOP], env=environment, cwd="/", capture_output=True, text=True, check=False
    )
    if probe.returncode != 0:
        raise SystemExit(f"conformance: penstock does not import:\n{probe.stderr.strip()}")
    return probe.stdout.strip()


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="CPython's own test_asyncio on penstock's loops.")
    parser.add_argument("--module", action="append", default=[], help="only this module, e.g. test_events (repeatable)")
    parser.add_argument("--config", choices=list(CONFIGS), help="only the pass with this config; default: each")
    parser.add_argument("--jobs", type=int, default=min(2, os.cpu_count() or 1), help="processes at once")
    parser.add_argument("--short", action="store_true", help="leave out the modules that hardly touch the loop")
    parser.add_argument("--json", metavar="FILE", help="write every outcome to FILE")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    arguments = parse(argv)
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # A shell's background job: the tests interrupt themselves, some until it works.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    configs = [arguments.config] if arguments.config else list(CONFIGS)
    passes: dict[str, tuple[dict[str, Outcomes], Verdict]] = {}
    failed = False
    for config in configs:
        outcomes, verdict, complaints = run_pass(arguments, config)
        passes[config] = outcomes, verdict
        failed = failed or bool(verdict.failed or complaints)
    if arguments.json:
        write_json(arguments.json, passes)
    return int(failed)


def run_pass(arguments: argparse.Namespace, config: str) -> tuple[dict[str, Outcomes], Verdict, list[str]]:
    """Run the tests with one config and print what came out; returns it, with complaints about the list."""
    try:
        expected, left_out = load_expected(config)
    except ListError as error:
        raise SystemExit(f"conformance: {error}") from None
    modules = choose_modules(arguments, config)
    environment = child_environment(CONFIGS[config])
    print(f"conformance: {describe_loop(environment)}, config {config}", flush=True)
    began_s = time.monotonic()
    outcomes = run_all(modules, arguments.jobs, environment, left_out)
    ours = outcomes["penstock"]
    verdict = judge(outcomes["asyncio"], ours, expected)
    flaky = settle_flaky(verdict, ours, environment)
    complaints = check_list(verdict, expected, ours)
    print_failures(verdict, complaints, flaky)
    if left_out:
        print(f"{len(left_out)} left out, which would hang: see expected.toml")
    print_summary(verdict, complaints, ours, time.monotonic() - began_s)
    return outcomes, verdict, complaints


if __name__ == "__main__":
    sys.exit(main())
