"""The counts of instructions and system calls: what the tools write, and how it is told."""

from pathlib import Path

import pytest
from benchmarks.counts.callgrind import totals
from benchmarks.counts.marked import by_row, operations
from benchmarks.counts.strace import calls
from benchmarks.counts.table import Count, Counts, lines, table
from benchmarks.micro.case import Case, nothing
from benchmarks.micro.cases import CASES

DUMP = """version: 1
desc: Trigger: Client Request: few 12
events: Ir
totals: 4711
"""
TRACE = """10 epoll_wait(3, [], 1024, 0) = 0
10 access("/benchmark-mark/start 7", F_OK) = -1 ENOENT
11 futex(0x7f, FUTEX_WAIT <unfinished ...>
10 write(4, "x", 1) = 1
11 <... futex resumed>) = 0
10 access("/benchmark-mark/few 7", F_OK) = -1 ENOENT
10 --- SIGCHLD {si_signo=SIGCHLD} ---
10 read(4, "x", 1) = 1
"""


def test_the_instructions_of_a_mark_are_found_in_its_dump() -> None:
    assert dict(totals([DUMP, "totals: 12\n", "no totals"])) == {("few", 12): 4711}


def test_the_calls_of_all_threads_between_two_marks_count_once_each() -> None:
    assert calls(TRACE.splitlines()) == {("start", 7): 1, ("few", 7): 2}


@pytest.mark.parametrize(
    ("step", "counted", "expected"), [(1, 2000, (500, 2000)), (1000, 2000, (1000, 4000)), (32, 128, (32, 128))]
)
def test_both_runs_are_multiples_of_the_step(step: int, counted: int, expected: tuple[int, int]) -> None:
    assert operations(Case(nothing, step=step, counted=counted)) == expected


def test_the_cost_of_an_operation_is_the_difference_of_both_runs() -> None:
    rows = ["create_task + await", "run_in_executor"]
    few, many = operations(CASES[rows[1]])
    found = {("few", 0): 5, ("few", 1): 100 + 3 * few, ("many", 1): 100 + 3 * many}
    assert by_row(found, rows) == {"run_in_executor": 3.0}


def test_what_was_not_counted_is_a_dash() -> None:
    assert [str(count) for count in (Count(), Count(2320.4), Count(strace=2.0), Count(1e6, -0.01))] == [
        "-",
        "2,320 / -",
        "- / 2.00",
        "1,000,000 / 0.00",
    ]


def test_counts_come_back_from_their_file(tmp_path: Path) -> None:
    counts = Counts.of_now({"a row": {"penstock": Count(1.5, 2.0), "uvloop": Count()}}, ["a note"])
    counts.save(tmp_path / "new" / "counts.json")
    assert Counts.load(tmp_path / "new" / "counts.json") == counts


def test_the_calls_are_those_that_were_counted() -> None:
    counts = Counts({"a row": {"penstock": Count(1.5, 2.0), "uvloop": Count(2.5)}}, [])
    assert counts.calls() == {("a row", "penstock"): 2.0}


def test_the_table_has_the_counted_rows_alone() -> None:
    counts = Counts({"a row": {"penstock": Count(10.0, 1.0)}}, [])
    assert table(counts, ["another", "a row"], ["uvloop", "penstock"]) == [
        ["row", "uvloop", "penstock"],
        ["a row", "-", "10 / 1.00"],
    ]
    assert not table(counts, ["another"], ["penstock"])
    assert [line.split()[-1] for line in lines(counts, ["a row"])] == ["penstock", "1.00"]
