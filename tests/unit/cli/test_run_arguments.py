"""Where our options end and the program's begin."""

import pytest

from penstock.cli.run import split_program

CASES = [
    ("", ([], [], False)),
    ("a.py -m x", ([], ["a.py", "-m", "x"], False)),
    ("-m mod --set a=b", ([], ["mod", "--set", "a=b"], True)),
    ("--set a=b a.py", (["--set", "a=b"], ["a.py"], False)),
    ("--set=a=b a.py", (["--set=a=b"], ["a.py"], False)),
    ("--config c.toml --set a=b -m mod", (["--config", "c.toml", "--set", "a=b"], ["mod"], True)),
    ("-- -odd.py x", ([], ["-odd.py", "x"], False)),
    ("--help", (["--help"], [], False)),
    ("--set", (["--set"], [], False)),
]


@pytest.mark.parametrize(("line", "parts"), CASES)
def test_the_first_word_that_is_not_ours_is_the_program(line: str, parts: tuple[list[str], list[str], bool]) -> None:
    assert split_program(line.split()) == parts
