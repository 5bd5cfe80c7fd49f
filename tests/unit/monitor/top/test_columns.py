"""Columns by width, trends, and numbers as text."""

import itertools

import pytest

from penstock.monitor.texts import printable
from penstock.monitor.top.columns import TopRow, placed, sorted_rows
from penstock.monitor.top.formats import amount, memory, per_second, percent, short_s, spark, wrapped
from penstock.monitor.top.state import TaskQuery, TopState
from penstock.monitor.top.trends import Trends
from penstock.monitor.top.views import connections, executors, findings, gates, loop, tasks

VIEWS = (
    loop.COLUMNS,
    tasks.COLUMNS,
    tasks.SITE_COLUMNS,
    tasks.STACK_COLUMNS,
    executors.COLUMNS,
    gates.COLUMNS,
    connections.COLUMNS,
    findings.COLUMNS,
)


@pytest.mark.parametrize("columns", VIEWS, ids=range(len(VIEWS)))
@pytest.mark.parametrize("width", [40, 80, 120, 300])
def test_the_columns_fit_the_width_and_the_important_ones_stay(columns, width) -> None:
    found = placed(columns, width)
    assert found[-1].x + found[-1].width <= width or width < 80
    if width >= 80:
        assert {each.key for each in columns if each.rank == 0} <= {each.column.key for each in found}
    for former, later in itertools.pairwise(found):
        assert former.x + former.width < later.x


@pytest.mark.parametrize("columns", VIEWS, ids=range(len(VIEWS)))
def test_each_column_is_explained_within_a_line_and_its_title_fits(columns) -> None:
    for each in columns:
        assert len(f"{each.title}: {each.explanation}") <= 80
        assert len(each.title) <= each.width


def test_a_group_by_site_shows_its_steps_if_they_are_known() -> None:
    group = {"site": {"file": "/srv/app.py", "line": 41, "function": "handler"}, "count": 2, "pid": 7}
    traced = {**group, "step": {"count": 3, "p99_s": 0.012}, "schedule": {"count": 3, "p99_s": 0.25}}
    state = TopState(query=TaskQuery(group="site"), task_rows=(traced, group))
    known, unknown = tasks.task_rows(state)
    assert (known.cells["step"], known.cells["schedule"]) == (short_s(0.012), short_s(0.25))
    assert known.numbers["step"] == 0.012
    assert (unknown.cells["step"], unknown.cells["schedule"]) == ("-", "-")
    shown = {each.key for each in tasks.task_columns("site", is_merged=False, rows=[traced, group])}
    hidden = {each.key for each in tasks.task_columns("site", is_merged=False, rows=[group])}
    assert shown - hidden == {"step", "schedule"}


def test_rows_are_sorted_by_numbers_or_text() -> None:
    rows = [TopRow(key, {"name": key}, {"n": n}) for key, n in (("b", 2.0), ("a", 10.0))]
    assert [row.key for row in sorted_rows(rows, "n", descends=True)] == ["a", "b"]
    assert [row.key for row in sorted_rows(rows, "name", descends=True)] == ["b", "a"]
    assert [row.key for row in sorted_rows(rows, "", descends=True)] == ["b", "a"]


def test_an_arrow_shows_the_trend_of_a_figure() -> None:
    trends = Trends()
    for value in (100, 102):
        trends.add("x", value)
    assert trends.arrow("x") == " "
    trends.add("x", 200)
    assert trends.arrow("x") == "↑"
    trends.add("x", 10)
    assert trends.arrow("x") == "↓"
    assert trends.arrow("unknown") == " "


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (short_s(None), "-"),
        (short_s(0), "0"),
        (short_s(83e-6), "83us"),
        (short_s(0.0012), "1.2ms"),
        (short_s(0.32), "320ms"),
        (short_s(0.000_999_9), "1.0ms"),
        (short_s(0.999_99), "1.0s"),
        (short_s(3.2), "3.2s"),
        (short_s(45), "45s"),
        (short_s(720), "12m"),
        (short_s(9000), "2.5h"),
        (short_s(3 * 86400), "3.0d"),
        (amount(None), "-"),
        (amount(9999), "9999"),
        (amount(12_345), "12k"),
        (amount(3_400_000), "3.4M"),
        (per_second(0.25), "0.2"),
        (percent(0.004), "0.4%"),
        (percent(1.0), "100%"),
        (memory(83_400_000), "80MiB"),
        (printable("a\x1b[31m\nb"), "a?[31m?b"),
        (spark([0.0, 0.5, 1.0], 1.0), " ▄█"),
        (wrapped("one two three four", 10, 1), "one two …"),
    ],
)
def test_numbers_are_short(text: str, expected: str) -> None:
    assert text == expected
