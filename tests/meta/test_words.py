"""Words: what a test can hold of plain technical English. The rest is read aloud."""

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.meta.source import python_files, shown, sources

# The subject of a sentence is a noun of the field: docs/glossary.md.
PRIVATE = re.compile(r"(?:who(?:ever|m|se)?|nobody|somebody|what(?:ever)?|of|one that|those)\b", re.IGNORECASE)
CYTHON_CLASS = re.compile(r"^(?:cdef )?class (\w+)", re.MULTILINE)
CYTHON_DOCSTRING = re.compile(r'^(?:[ ]*(?:cp?def|def|class|cdef class)\b[^\n]*:\n[ ]*)?"""(.+)', re.MULTILINE)


def classes(path: Path) -> list[str]:
    """Return the names of the public classes at a module's top level."""
    if path.suffix == ".pyx":
        return [name for name in CYTHON_CLASS.findall(path.read_text()) if not name.startswith("_")]
    body = ast.parse(path.read_text()).body
    return [node.name for node in body if isinstance(node, ast.ClassDef) and not node.name.startswith("_")]


def docstrings(path: Path) -> Iterator[str]:
    """Yield a module's docstrings: its own, and those of its classes and functions."""
    if path.suffix != ".py":
        yield from CYTHON_DOCSTRING.findall(path.read_text())
        return
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield from filter(None, [ast.get_docstring(node)])


def test_a_class_name_has_one_meaning() -> None:
    homes = defaultdict(list)
    for path in sources(".py", ".pyx"):
        for name in classes(path):
            homes[name].append(shown(path))
    assert not {name: paths for name, paths in homes.items() if len(paths) > 1}


@pytest.mark.parametrize("path", sorted({*python_files(), *sources(".pyx", ".pxd")}), ids=shown)
def test_a_docstring_begins_with_a_word_of_the_field(path: Path) -> None:
    wrong = [text.splitlines()[0] for text in docstrings(path) if PRIVATE.match(text.strip())]
    assert not wrong, f"{shown(path)}: {wrong}"


def test_the_rule_itself_tells_private_words() -> None:
    assert PRIVATE.match("Who may cancel the task")
    assert PRIVATE.match("Of what it owes")
    assert PRIVATE.match("One that waits")
    assert not PRIVATE.match("Offer a job to a lane")
    assert not PRIVATE.match("Whole milliseconds")
