"""Size: a file is read in one sitting, a function on one screen; what is longer says why, what is far longer fails."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.meta.source import python_files, shown, sources

FILE_LINES, FILE_LIMIT = 600, 1000
FUNCTION_LINES, FUNCTION_LIMIT = 60, 100
REASON = re.compile(r"\blong because\b", re.IGNORECASE)
# The one exemption: the reactor's turn, whose steps share a frame.
EXEMPT = {("src/penstock/_core/reactor.pyx", "turn"), ("src/penstock/_core/reactor.pyx", "_turn")}
CYTHON_FUNCTION = re.compile(
    r"^(?P<indent> *)(?:async )?(?:def|cp?def)\b(?! *(?:class|struct|enum|union|extern)\b)[^\n=]*?(?P<name>\w+)\s*\("
)
NOT_CODE = re.compile(r"^\s*(?:$|#)")
FILES = sorted({*python_files(), *sources(".pyx", ".pxd", ".pyi")})


@pytest.mark.parametrize("path", FILES, ids=shown)
def test_a_file_is_read_in_one_sitting(path: Path) -> None:
    lines = path.read_text().splitlines()
    assert len(lines) <= FILE_LIMIT, f"{shown(path)} has {len(lines)} lines: split it"
    if len(lines) > FILE_LINES:
        assert REASON.search("\n".join(lines[:15])), f"{shown(path)} has {len(lines)} lines: say 'Long because' on top"


@pytest.mark.parametrize("path", FILES, ids=shown)
def test_a_function_fits_a_screen(path: Path) -> None:
    found = python_functions(path) if path.suffix in {".py", ".pyi"} else cython_functions(path)
    for name, body in found:
        if (shown(path), name) in EXEMPT:
            continue
        assert len(body) <= FUNCTION_LIMIT, f"{shown(path)}: {name} has {len(body)} lines: split it"
        if len(body) > FUNCTION_LINES:
            text = " ".join(body)
            assert REASON.search(text), f"{shown(path)}: {name} has {len(body)} lines: say 'Long because' in it"


def python_functions(path: Path) -> Iterator[tuple[str, list[str]]]:
    lines = path.read_text().splitlines()
    for node in ast.walk(ast.parse("\n".join(lines))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name, lines[node.lineno - 1 : node.end_lineno]


def cython_functions(path: Path) -> Iterator[tuple[str, list[str]]]:
    lines = path.read_text().splitlines()
    for start, line in enumerate(lines):
        head = CYTHON_FUNCTION.match(line)
        if head:
            yield head["name"], lines[start : _end(lines, start, len(head["indent"]))]


def _end(lines: list[str], start: int, indent: int) -> int:
    """Where the block that starts here ends: before the next code line that is not deeper; `)` closes a signature."""
    end = start + 1
    for at in range(start + 1, len(lines)):
        if NOT_CODE.match(lines[at]):
            continue
        depth = len(lines[at]) - len(lines[at].lstrip())
        if depth <= indent and not lines[at].lstrip().startswith(")"):
            break
        end = at + 1
    return end


CYTHON = """
cdef class A(B):
    cdef inline int one(self) noexcept nogil:
        return 1

    def two(
        self,
    ):
        pass

cpdef object three(a, b=1):
    # why
    return a

X = 1
"""


def test_the_cython_reader_finds_functions_and_their_ends(tmp_path: Path) -> None:
    source = tmp_path / "x.pyx"
    source.write_text(CYTHON)
    assert [(name, len(body)) for name, body in cython_functions(source)] == [("one", 2), ("two", 4), ("three", 3)]
