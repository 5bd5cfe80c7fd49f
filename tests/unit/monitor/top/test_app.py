"""`penstock top` in a terminal in memory: views, keys, partial answers, ends, names of any kind."""

import dataclasses
from typing import Any

import pytest

pytest.importorskip("textual")

from rich.cells import cell_len
from textual.events import Key

from penstock.monitor.top.app import is_colourless
from tests.support.monitored import FakeProcess
from tests.unit.monitor.top.driving import LARGE, SMALL, application, drive, screen, shows

SIZES = pytest.mark.parametrize("size", [SMALL, LARGE, (200, 50)], ids=str)
VIEWS = {
    "1": ("loop", "dly p99", "most tasks"),
    "2": ("number", "made in", "60 match"),
    "3": ("lane", "processes", "queue "),
    "4": ("gate", "requests", "gradient"),
    "5": ("streams", "120", "clients lost lately"),
    "6": ("finding", "place"),
}


@SIZES
def test_each_view_shows_its_rows_and_fits(size: tuple[int, int]) -> None:
    async def script(pilot: Any) -> None:
        for key, texts in VIEWS.items():
            await pilot.press(key)
            for text in texts:
                await shows(pilot, text)
            lines = screen(pilot).split("\n")
            assert len(lines) == size[1]
            assert max(map(cell_len, lines)) <= size[0]
            assert "? help  q quit" in lines[-1]
            assert f"[{key} " in screen(pilot)

    drive(application(FakeProcess(7)), script, size)


def test_the_first_line_says_that_nothing_is_wrong() -> None:
    async def script(pilot: Any) -> None:
        assert (await shows(pilot, "nothing is wrong")).startswith("= nothing is wrong")

    drive(application(FakeProcess(7)), script)


def test_a_blocked_loop_is_the_first_line_of_every_view() -> None:
    async def script(pilot: Any) -> None:
        await shows(pilot, "BLOCKED for 3.2 s")
        for key in "123456":
            await pilot.press(key)
            assert (await shows(pilot, f"[{key} ")).startswith("!! the loop is blocked by")

    drive(application(FakeProcess(7, blocked_s=3.2)), script)


def test_the_screen_moves_while_the_gil_is_held_and_says_so() -> None:
    process = FakeProcess(7)

    async def script(pilot: Any) -> None:
        await shows(pilot, "connected")
        process.blocked_s, process.holds_gil = 3.2, True
        await shows(pilot, "BLOCKED for 3.2 s; the GIL is held")
        process.blocked_s = 4.4
        await shows(pilot, "BLOCKED for 4.4 s; the GIL is held")
        process.blocked_s, process.holds_gil = None, False
        await shows(pilot, "connected")

    drive(application(process), script)


def test_the_tasks_stay_while_the_gil_is_held() -> None:
    process = FakeProcess(7)

    async def script(pilot: Any) -> None:
        await pilot.press("2")
        await shows(pilot, "60 match")
        process.holds_gil = True
        assert "heartbeat" in await shows(pilot, "the tasks cannot be read now")

    drive(application(process), script, LARGE)


def test_a_silent_process_is_named_and_the_keys_work() -> None:
    process = FakeProcess(7)

    async def script(pilot: Any) -> None:
        await shows(pilot, "connected")
        process.is_silent = True
        await shows(pilot, "NO ANSWER")
        await pilot.press("4")
        await shows(pilot, "[4 Gates]")

    drive(application(process), script)


def test_the_last_figures_stay_after_the_end_of_the_process() -> None:
    app = application(FakeProcess(7))
    source = app._open_source(7)

    async def script(pilot: Any) -> None:
        await pilot.press("3")
        await shows(pilot, "threads")
        source.processes.clear()
        assert "threads" in await shows(pilot, "the process has ended")

    drive(app, script)


def test_only_visible_tasks_are_asked_for_and_only_in_their_view() -> None:
    process = FakeProcess(7)

    async def script(pilot: Any) -> None:
        await shows(pilot, "connected")
        assert not [each for each in process.asked if each[0] == "tasks"]
        await pilot.press("2")
        await shows(pilot, "60 match")
        await pilot.press("pagedown", "pagedown")
        await pilot.pause(0.3)
        limits = [arguments["limit"] for command, arguments in process.asked if command == "tasks"]
        assert max(limits) <= 60

    drive(application(process), script)


def test_the_process_sorts_the_tasks() -> None:
    process = FakeProcess(7)

    async def script(pilot: Any) -> None:
        await pilot.press("2")
        await shows(pilot, "age▼")
        await pilot.press("r")
        await shows(pilot, "age▲")
        await pilot.press("S")
        await shows(pilot, "age▼")
        await pilot.press("r")
        await shows(pilot, "age▲")
        await pilot.press("s")
        await shows(pilot, "number▼")
        await pilot.press("s")
        await shows(pilot, "age▼")
        await pilot.press("right", "right", "right", "right", "s")
        await shows(pilot, "ran▼")
        await pilot.pause(0.3)
        asked = [arguments for command, arguments in process.asked if command == "tasks"]
        assert {"number", "age", "running"} <= {each["sort"] for each in asked}
        assert not all(each["descending"] for each in asked)

    drive(application(process), script)


def test_a_filter_is_typed_kept_and_dropped() -> None:
    process = FakeProcess(7)

    async def script(pilot: Any) -> None:
        await pilot.press("2")
        await shows(pilot, "60 match")
        await pilot.press("slash", *"send_mail")
        await shows(pilot, "60 tasks, 9 match")
        await pilot.press("enter")
        await shows(pilot, "filter 'send_mail'")
        await pilot.press("escape")
        await shows(pilot, "60 match")

    drive(application(process), script)


def test_a_filter_that_comes_in_a_burst_of_keys_is_taken_whole() -> None:
    async def script(pilot: Any) -> None:
        await pilot.press("2")
        await shows(pilot, "60 match")
        for each in "/send_mail":
            pilot.app.post_message(Key("slash" if each == "/" else each, each))
        pilot.app.post_message(Key("enter", "\r"))
        await shows(pilot, "60 tasks, 9 match")
        await shows(pilot, "filter 'send_mail'")
        await pilot.press("escape")
        await shows(pilot, "60 match")

    drive(application(FakeProcess(7)), script)


def test_a_filter_of_the_other_views_is_local() -> None:
    async def script(pilot: Any) -> None:
        await pilot.press("3")
        await shows(pilot, "threads")
        await pilot.press("slash", *"cpu", "enter")
        await shows(pilot, "threads", gone=True)
        assert "processes" in screen(pilot)

    drive(application(FakeProcess(7)), script)


def test_a_pause_asks_nothing_and_says_so() -> None:
    process = FakeProcess(7)

    async def script(pilot: Any) -> None:
        await shows(pilot, "connected")
        await pilot.press("p")
        await shows(pilot, "PAUSED")
        await pilot.pause(0.3)
        count = len(process.asked)
        await pilot.pause(0.5)
        assert len(process.asked) == count
        await pilot.press("p")
        await shows(pilot, "PAUSED", gone=True)

    drive(application(process), script)


def test_enter_inspects_a_task_and_escape_returns() -> None:
    async def script(pilot: Any) -> None:
        await pilot.press("2")
        await shows(pilot, "60 match")
        await pilot.press("enter")
        text = await shows(pilot, "Await chain")
        assert "task 60" in text
        assert "/srv/shop/app.py:88 in handle_request" in text
        assert "a lock 'db'" in text
        assert "3  supervise-3" in text
        await pilot.press("w")
        await shows(pilot, "task 3 ")
        await pilot.press("escape")
        await shows(pilot, "task 60 ")
        await pilot.press("escape")
        await shows(pilot, "[2 Tasks]")

    drive(application(FakeProcess(7)), script)


def test_tasks_are_grouped_by_site_and_by_stack() -> None:
    async def script(pilot: Any) -> None:
        await pilot.press("2", "g")
        await shows(pilot, "oldest")
        await shows(pilot, "7 groups")
        await pilot.press("g")
        await shows(pilot, "await stack, innermost first")
        await pilot.press("g")
        await shows(pilot, "60 match")

    drive(application(FakeProcess(7)), script)


def test_enter_on_a_site_lists_its_tasks() -> None:
    async def script(pilot: Any) -> None:
        await pilot.press("2", "g")
        await shows(pilot, "7 groups")
        await pilot.press("enter")
        await shows(pilot, "filter '/srv/shop/app.py:40'")

    drive(application(FakeProcess(7)), script)


def test_the_selected_column_is_explained_and_the_help_has_all() -> None:
    async def script(pilot: Any) -> None:
        await shows(pilot, "loop: the loop's name")
        await pilot.press("right", "right")
        await shows(pilot, "busy: utilization")
        await pilot.press("question_mark")
        await shows(pilot, "Keys")
        await pilot.press("escape")
        await shows(pilot, "[1 Loop]")

    drive(application(FakeProcess(7)), script)


def test_workers_are_shown_together_and_apart() -> None:
    async def script(pilot: Any) -> None:
        text = await shows(pilot, "2 workers together")
        assert "1/main" in text
        assert "2/main" in text
        await pilot.press("w")
        await shows(pilot, "all 2 workers together")
        await pilot.press("down", "down", "enter")
        await shows(pilot, "pid 12 worker 2")
        assert "1/main" not in screen(pilot)

    drive(application(FakeProcess(11, 1), FakeProcess(12, 2)), script)


def test_tasks_of_several_workers_name_their_process_in_80_columns() -> None:
    async def script(pilot: Any) -> None:
        await shows(pilot, "2 workers together")
        await pilot.press("2")
        text = await shows(pilot, "process")
        assert any(line.rstrip().endswith(("11", "12")) for line in text.splitlines())

    drive(application(FakeProcess(11, 1), FakeProcess(12, 2)), script)


def test_a_worker_that_blocks_is_named_among_all() -> None:
    async def script(pilot: Any) -> None:
        assert (await shows(pilot, "worker 2: ")).startswith("!! worker 2: the loop is blocked")

    drive(application(FakeProcess(11, 1), FakeProcess(12, 2, blocked_s=2.0)), script)


def test_a_process_is_chosen_from_a_list() -> None:
    async def script(pilot: Any) -> None:
        await shows(pilot, "Choose a process")
        await pilot.press("down", "enter")
        await shows(pilot, "connected")

    drive(application(FakeProcess(7), pid=None, choices=[(5, "5  echo.py"), (7, "7  shop")]), script)


@dataclasses.dataclass
class _Odd(FakeProcess):
    """A process with many loops, or none, and with names of any kind."""

    loop_count: int = 1
    odd_name: str = "main"

    def _loop(self, wave: float) -> dict[str, Any]:
        return {**super()._loop(wave), "name": self.odd_name}

    def _snapshot(self, sites: int = 50) -> dict[str, Any]:
        found = super()._snapshot(sites)
        loops = [{**found["loops"][0], "name": f"{self.odd_name}{at or ''}"} for at in range(self.loop_count)]
        return {**found, "loops": loops}

    def _row(self, number: int) -> dict[str, Any]:
        return {**super()._row(number), "name": f"{self.odd_name}-{number}"}


@pytest.mark.parametrize(
    "name", ["計画タスク" * 20, "x" * 500, "\x1b[31mred\x1b[0m\nline", "[bold]markup[/]", "é👩‍👩‍👧"], ids=ascii
)
def test_a_name_of_any_kind_neither_breaks_a_line_nor_controls_the_terminal(name: str) -> None:
    async def script(pilot: Any) -> None:
        await shows(pilot, "connected")
        for key in ("1", "2"):
            await pilot.press(key)
            await shows(pilot, f"[{key} ")
            await pilot.pause(0.2)
            text = screen(pilot)
            assert "\x1b" not in text
            assert max(cell_len(line) for line in text.split("\n")) <= 80
        await shows(pilot, "60 match")

    drive(application(_Odd(7, odd_name=name)), script)


@pytest.mark.parametrize("count", [0, 60])
def test_any_number_of_loops_is_shown(count: int) -> None:
    async def script(pilot: Any) -> None:
        await shows(pilot, "main59" if count > 100 else "no loop runs" if not count else "main9")
        await pilot.press("end")
        if count:
            await shows(pilot, "main59")
        for key in "23456":
            await pilot.press(key)
            await shows(pilot, f"[{key} ")

    drive(application(_Odd(7, loop_count=count)), script)


def test_the_state_of_a_row_is_text_and_not_only_colour() -> None:
    async def script(pilot: Any) -> None:
        assert "BLOCKED" in await shows(pilot, "> main")

    drive(application(FakeProcess(7, blocked_s=1.0)), script)


def test_q_ends_it() -> None:
    app = application(FakeProcess(7))

    async def script(pilot: Any) -> None:
        await shows(pilot, "connected")
        await pilot.press("q")
        await pilot.pause()

    drive(app, script)
    assert not app.is_running


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"NO_COLOR": "1"}, True),
        ({"TERM": "dumb"}, True),
        ({"TERM": "xterm-256color"}, False),
        ({"TERM": "xterm-m"}, True),
    ],
)
def test_colours_are_left_out_where_they_are_not_wanted(environ: dict[str, str], expected: bool) -> None:
    assert is_colourless(environ) is expected
