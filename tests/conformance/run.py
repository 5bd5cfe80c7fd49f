"""`make conformance`: CPython's own test_asyncio, run in place, with every loop replaced by penstock's.

Each module runs twice, on stock asyncio and on penstock, a process each; verdict.py says what counts. A test that fails
only beside others is run once more alone and reported as flaky. Exit 0: nothing fails that stock asyncio passes.
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
NOT_IN_SHORT = {"test_futures", "test_futures2", "test_locks", "test_pep492", "test_tasks", "test_tools", "test_ssl"}
SLOWEST_FIRST = ["test_events", "test_ssl", "test_tasks", "test_subprocess", "test_sendfile", "test_unix_events"]
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


def choose_modules(arguments: argparse.Namespace) -> list[str]:
    known = modules_of_interpreter()
    unknown = [name for name in arguments.module if name not in known]
    if unknown:
        raise SystemExit(f"conformance: no module {unknown[0]!r} in test.test_asyncio; there are {', '.join(known)}")
    if arguments.module:
        return list(arguments.module)
    return [name for name in known if not (arguments.short and name in NOT_IN_SHORT)]


def run_all(modules: list[str], loops: list[str], jobs: int, environment: dict[str, str]) -> dict[str, Outcomes]:
    """Outcomes by loop; both loops of a module run one after the other, so that the machine treats them alike."""
    pairs = [(module, loop) for module in modules for loop in loops]
    outcomes: dict[str, Outcomes] = {loop: {} for loop in loops}
    with ThreadPoolExecutor(jobs) as executor:
        runs = [(module, loop, executor.submit(timed_run, module, loop, environment)) for module, loop in pairs]
        for module, loop, run in runs:
            found, took_s = run.result()
            outcomes[loop].update(found)
            print(f"  {module:24} {loop:9} {len(found):5} tests {took_s:7.1f} s", flush=True)
    return outcomes


def timed_run(module: str, loop: str, environment: dict[str, str]) -> tuple[Outcomes, float]:
    began_s = time.monotonic()
    found = run_module(module, loop, environment)
    return found, time.monotonic() - began_s


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
    print(f"{len(verdict.passed)} passed, {failed} failed, {len(verdict.skipped)} skipped")


def write_json(path: str, outcomes: dict[str, Outcomes], verdict: Verdict) -> None:
    plain = {loop: {name: asdict(outcome) for name, outcome in found.items()} for loop, found in outcomes.items()}
    document = {"python": sys.version, "outcomes": plain, "verdict": asdict(verdict)}
    Path(path).write_text(json.dumps(document, indent=1), encoding="utf-8")


def describe_loop(environment: dict[str, str]) -> str:
    probe = subprocess.run(
        [sys.executable, "-c", SHOW_LOOP], env=environment, cwd="/", capture_output=True, text=True, check=False
    )
    if probe.returncode != 0:
        raise SystemExit(f"conformance: penstock does not import:\n{probe.stderr.strip()}")
    return probe.stdout.strip()


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="CPython's own test_asyncio on penstock's loop.")
    parser.add_argument("--module", action="append", default=[], help="only this module, e.g. test_events (repeatable)")
    parser.add_argument("--jobs", type=int, default=min(2, os.cpu_count() or 1), help="processes at once")
    parser.add_argument(
        "--loop", choices=["penstock", "asyncio"], default="penstock", help="asyncio: the base line alone"
    )
    parser.add_argument("--short", action="store_true", help="leave out the modules that hardly touch the loop")
    parser.add_argument("--json", metavar="FILE", help="write every outcome to FILE")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    arguments = parse(argv)
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # A shell's background job: the tests interrupt themselves, some until it works.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    modules = choose_modules(arguments)
    environment = child_environment()
    loops = ["asyncio", "penstock"] if arguments.loop == "penstock" else ["asyncio"]
    if arguments.loop == "penstock":
        print(f"conformance: {describe_loop(environment)}", flush=True)
    began_s = time.monotonic()
    outcomes = run_all(modules, loops, arguments.jobs, environment)
    return finish(arguments, outcomes, environment, began_s)


def finish(
    arguments: argparse.Namespace, outcomes: dict[str, Outcomes], environment: dict[str, str], began_s: float
) -> int:
    stock, ours = outcomes["asyncio"], outcomes[arguments.loop]
    try:
        expected = load_expected() if arguments.loop == "penstock" else {}
    except ListError as error:
        raise SystemExit(f"conformance: {error}") from None
    verdict = judge(stock, ours, expected)
    flaky = settle_flaky(verdict, ours, environment)
    complaints = check_list(verdict, expected, ours)
    if arguments.json:
        write_json(arguments.json, outcomes, verdict)
    print_failures(verdict, complaints, flaky)
    print_summary(verdict, complaints, ours, time.monotonic() - began_s)
    return 1 if verdict.failed or complaints else 0


if __name__ == "__main__":
    sys.exit(main())
