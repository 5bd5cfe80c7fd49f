"""Where tasks are made, for metrics: module and function, wherever the program is installed; libraries passed over."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from penstock.loop import NATIVE
from penstock.tasks.place import Place, module_of

LIBRARY = """
import asyncio
def start(coro):
    return asyncio.create_task(coro)
"""
SERVICE = """
import asyncio
from framework.tasks import start
class Orders:
    async def fill(self):
        await asyncio.gather(start(asyncio.sleep(0)), start(asyncio.sleep(0)))
"""
PROGRAM = """
import penstock, sys
from penstock.integrations.metrics.exporter import process_sources
from penstock.telemetry import MetricReader
from shop.orders import Orders
async def main():
    await Orders().fill()
    for (_, site), count in sorted(MetricReader(process_sources()).take()["asyncio.task.site.created"].items()):
        print(site, int(count))
penstock.run(main())
"""


def deployed(folder: Path, program: str = PROGRAM, **environment: str) -> list[str]:
    """Return the output of the program, installed in the folder."""
    (folder / "shop").mkdir(parents=True)
    (folder / "framework").mkdir()
    (folder / "framework/__init__.py").touch()
    (folder / "framework/tasks.py").write_text(LIBRARY)
    (folder / "shop/orders.py").write_text(SERVICE)
    (folder / "program.py").write_text(program)
    root = str(Path(__file__).parents[3] / "src")
    plain = {name: value for name, value in os.environ.items() if not name.startswith("PENSTOCK_")}
    done = subprocess.run(
        [sys.executable, "program.py"],
        cwd=folder,
        env={**plain, "PYTHONPATH": root, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return done.stdout.splitlines()


LOOPS = pytest.mark.parametrize("pure", ["0", pytest.param("1", id="pure")] if NATIVE else ["1"])


@LOOPS
def test_labels_are_the_same_in_every_place_a_program_is_deployed_to(tmp_path: Path, pure: str) -> None:
    first = deployed(tmp_path / "releases/1", PENSTOCK_PURE=pure)
    assert first == deployed(tmp_path / "elsewhere/2", "# moved\n" * 20 + PROGRAM, PENSTOCK_PURE=pure)
    assert "framework.tasks:start 2" in first
    assert not [line for line in first if str(tmp_path) in line or ".py" in line]


@LOOPS
def test_a_skipped_library_leaves_the_tasks_to_its_callers(tmp_path: Path, pure: str) -> None:
    found = deployed(tmp_path / "app", PENSTOCK_PURE=pure, PENSTOCK_TASKS_SKIP_MODULES="framework,starlette")
    assert "shop.orders:Orders.fill 2" in found
    assert not [line for line in found if "framework" in line]


def test_a_package_is_skipped_and_not_one_that_begins_with_the_same_letters(tmp_path: Path) -> None:
    found = deployed(tmp_path / "app", PENSTOCK_TASKS_SKIP_MODULES="frame,framework.task")
    assert "framework.tasks:start 2" in found


def test_a_file_is_named_by_the_longest_path_it_lies_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [str(tmp_path), str(tmp_path / "lib"), *sys.path])
    module_of.cache_clear()
    assert module_of(str(tmp_path / "lib/shop/__init__.py")) == "shop"
    assert module_of(str(tmp_path / "shop/a.py")) == "shop.a"
    assert module_of("/nowhere/tool.py") == "tool"
    assert module_of("<string>") == module_of("/tmp/ipykernel_7/1234567.py") == "__main__"
    module_of.cache_clear()


def test_a_finding_keeps_the_line() -> None:
    assert str(Place("/srv/app.py", 7, "work")) == "/srv/app.py:7 in work"
    assert Place("", 0, "other").label == "other"
