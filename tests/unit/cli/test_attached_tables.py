"""Cells and tables of the attached commands: they fit the terminal, and hold no control character of a program."""

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.cli.attached import cells
from penstock.cli.attached.tables import Column, cut, cut_lines, table, terminal_width

COLUMNS = (Column("NUMBER"), Column("NAME", True), Column("SITE", True), Column("STEPS"))


def test_a_pipe_gets_whole_lines() -> None:
    lines = table(COLUMNS, [("1", "n" * 300, "s" * 300, "5")])
    assert lines[1].split() == ["1", "n" * 300, "s" * 300, "5"]


def test_texts_are_cut_to_the_terminal_and_numbers_are_not() -> None:
    lines = table(COLUMNS, [("1234567", "n" * 50, "s" * 90, "999,999")], 80)
    assert all(len(line) <= 80 for line in lines)
    assert lines[1].startswith("1234567  n")
    assert lines[1].endswith("…  999,999")


def test_the_widest_text_is_cut_first() -> None:
    lines = table(COLUMNS, [("1", "short name", "s" * 90, "5")], 60)
    assert "short name" in lines[1]


def test_titles_stand_above_their_cells() -> None:
    lines = table(COLUMNS, [("1", "a", "b", "5"), ("22", "cc", "dd", "6")])
    assert lines == ["NUMBER  NAME  SITE  STEPS", "     1  a     b         5", "    22  cc    dd        6"]


def test_a_column_without_a_value_is_left_out() -> None:
    assert table(COLUMNS, [("1", "a", "-", "5")])[0] == "NUMBER  NAME  STEPS"
    assert table(COLUMNS, []) == ["NUMBER  NAME  SITE  STEPS"]


@given(
    st.lists(st.tuples(*[st.text("abc é…", max_size=60)] * 4), max_size=5),
    st.integers(20, 200),
)
def test_no_line_is_longer_than_the_terminal(rows: list[tuple[str, str, str, str]], width: int) -> None:
    assert all(len(line) <= width for line in table(COLUMNS, rows, width))


def test_a_text_that_is_cut_ends_with_an_ellipsis() -> None:
    assert (cut("abcdef", 4), cut("abcd", 4), cut("abcdef", None)) == ("abc…", "abcd", "abcdef")
    assert cut_lines(["abcdef", "a"], 3) == ["ab…", "a"]


def test_without_a_terminal_there_is_no_width(monkeypatch: pytest.MonkeyPatch) -> None:
    assert terminal_width() is None
    monkeypatch.setattr(sys, "stdout", None)
    assert terminal_width() is None


def test_a_name_cannot_steer_the_terminal() -> None:
    assert cells.text("a\x1b[2J\x07b\nc") == "a?[2J?b c"
    assert cells.place({"file": "/x/\x1bapp.py", "line": 3, "function": "f"}) == "?app.py:3 in f"


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        *[(None, "-"), ("x", "-"), (True, "-"), (0, "0"), (4.2e-6, "4 µs"), (0.0042, "4.2 ms"), (0.25, "250 ms")],
        *[(2.34, "2.3 s"), (90.0, "90 s"), (600, "10 min"), (90000, "25 h")],
    ],
)
def test_a_time_has_a_unit(value: object, shown: str) -> None:
    assert cells.seconds(value) == shown


def test_what_is_missing_is_a_dash() -> None:
    assert [cells.count(None), cells.share(None), cells.place(None), cells.tally(None), cells.text(None)] == ["-"] * 5
    assert cells.items({"a": 3}, "a") == cells.items([], "a") == []
    assert cells.items({"a": [1, {"b": 2}]}, "a") == [{"b": 2}]


def test_counts_by_kind_are_listed_from_the_largest() -> None:
    assert cells.tally({"hung": 1, "stall": 1200, "stuck": 0}) == "1,200 stall, 1 hung"
    assert cells.tally({}) == cells.tally({"stall": 0}) == "0"
