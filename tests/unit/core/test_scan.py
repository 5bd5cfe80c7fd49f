"""The scan of a ledger in pieces: it shows what a snapshot shows, in any order that is asked for."""

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import penstock
from penstock.loop import NATIVE
from penstock.loop.native import native_core

if not NATIVE:
    pytest.skip("without native code there is no ledger", allow_module_level=True)

AGE, RUNNING, READY, WAITING, STEPS, NUMBER = range(6)


def scanned(count: int, piece: int, look: Any) -> Any:
    """Return `look(scan, ledger, tasks)` of a loop with so many waiting tasks, of which each third has run twice."""

    async def leaf(number: int, twice: asyncio.Event) -> None:
        if number % 3 == 0:
            await twice.wait()
        await asyncio.Event().wait()

    async def main() -> Any:
        twice = asyncio.Event()
        tasks = [asyncio.create_task(leaf(number, twice), name=f"leaf-{number}") for number in range(count)]
        await asyncio.sleep(0)
        twice.set()
        await asyncio.sleep(0)
        core = native_core(asyncio.get_running_loop())
        assert core is not None
        scan, ledger = core.begin_scan(), core.probe.ledger
        while scan.take(ledger, piece):
            pass
        return look(scan, ledger, tasks)

    return penstock.run(main(), config=penstock.Config())


@pytest.mark.parametrize("piece", [1, 7, 256, 100_000])
def test_a_scan_in_pieces_of_any_size_has_every_task_once(piece: int) -> None:
    def look(scan: Any, ledger: Any, tasks: Any) -> None:
        numbers = [row.number for row in scan.top(NUMBER, 10_000, False)]
        assert len(numbers) == len(set(numbers)) == len(scan) == 601
        assert numbers == sorted(numbers)

    scanned(600, piece, look)


def test_the_sums_of_sites_are_those_of_the_ledger() -> None:
    def look(scan: Any, ledger: Any, tasks: Any) -> None:
        rows = {row.site: row for row in ledger.site_counts()}
        for site in scan.sites():
            assert site.ready + site.running + site.waiting == rows[site.site].live
        assert sum(site.running for site in scan.sites()) == 1

    scanned(100, 10, look)


@given(st.integers(0, 70), st.booleans(), st.integers(0, 5), st.data())
def test_the_first_by_a_key_are_those_of_a_sort(limit: int, descending: bool, key: int, data: st.DataObject) -> None:
    def look(scan: Any, ledger: Any, tasks: Any) -> None:
        wanted = bytes(data.draw(st.lists(st.integers(0, 1), min_size=len(scan), max_size=len(scan))))
        names = ("born_ns", "running_ns", "ready_ns", "since_ns", "steps", "number")
        everything = scan.top(NUMBER, 1000, False)
        order = {number: at for at, (number, _, _) in enumerate(scan.places(0, 1000))}
        chosen = [row for row in everything if wanted[order[row.number]]]
        found = scan.top(key, limit, descending, wanted)
        assert len(found) == min(limit, len(chosen))
        assert {row.number for row in found} <= {row.number for row in chosen}
        if key in (STEPS, NUMBER):
            keys = sorted((getattr(row, names[key]) for row in chosen), reverse=descending)
            assert [getattr(row, names[key]) for row in found] == keys[:limit]

    scanned(50, 16, look)


def test_a_task_is_found_by_its_place_until_it_ends() -> None:
    def look(scan: Any, ledger: Any, tasks: Any) -> Any:
        (row,) = [row for row in scan.top(NUMBER, 100, False) if ledger.weak_at(row.at, row.number)() is tasks[3]]
        assert ledger.weak_at(row.at, row.number + 1) is None
        assert ledger.weak_at(10**9, row.number) is None
        assert ledger.weak_at(row.at, 0) is None
        assert ledger.numbered(row.number).number == row.number
        assert ledger.numbered(0) is None and ledger.numbered(10**9) is None
        return row, ledger

    row, ledger = scanned(10, 100, look)
    assert ledger.weak_at(row.at, row.number) is None


def test_a_mask_of_another_length_is_refused() -> None:
    def look(scan: Any, ledger: Any, tasks: Any) -> None:
        with pytest.raises(ValueError, match="a byte for each of 6 records"):
            scan.top(AGE, 3, True, b"\1\1")

    scanned(5, 100, look)
