"""Docstrings of the public interface: units of the arguments, the result, the exceptions."""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import pytest

from tests.meta.source import module_name, shown, sources

PACKAGES = (
    "",
    "config",
    "executors",
    "integrations",
    "loop",
    "pressure",
    "pressure.limits",
    "tasks",
    "telemetry",
    "testing",
)
# Entry points of their own: documented by module path.
MODULES = (
    "errors",
    "integrations.admission",
    "integrations.aiohttp",
    "integrations.anyio",
    "integrations.grpc",
    "integrations.health.server",
    "integrations.metrics.exporter",
    "integrations.streams",
    "times",
)
UNIT = re.compile(r"_(?:s|ms|us|ns|bytes|count|fd|hz|ratio)$")
RESULT = re.compile(r"\b(?:return|yield|iterat|context manager|decorat)", re.IGNORECASE)


@dataclass(frozen=True)
class Public:
    """One public function: its node, and the docstring that a reader of it sees."""

    path: Path
    name: str
    node: ast.FunctionDef | ast.AsyncFunctionDef
    text: str

    def __str__(self) -> str:
        return f"{shown(self.path)}: {self.name}"


def public_names() -> set[tuple[str, str]]:
    """Return (module, name) for each name that a public package or module exports."""
    found = set()
    for each in (*PACKAGES, *MODULES):
        home = import_module(f"penstock.{each}".rstrip("."))
        for name in home.__all__:
            module = getattr(getattr(home, name), "__module__", None)
            if isinstance(module, str) and module.startswith("penstock"):
                found.add((module, name))
    return found


def functions() -> Iterator[Public]:
    """Yield the public functions, and the public methods of the public classes, that have a docstring."""
    names = public_names()
    for path in sources(".py"):
        for node in ast.parse(path.read_text()).body:
            if (module_name(path), getattr(node, "name", None)) not in names:
                continue
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield Public(path, node.name, node, ast.get_docstring(node) or "")
            elif isinstance(node, ast.ClassDef):
                yield from methods(path, node)


def methods(path: Path, kind: ast.ClassDef) -> Iterator[Public]:
    """Yield a class's public methods; `__init__` is documented by the class."""
    for node in kind.body:
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        own = ast.get_docstring(node) or ""
        text = f"{ast.get_docstring(kind)}\n{own}" if node.name == "__init__" else own
        if text and (node.name == "__init__" or not node.name.startswith("_")):
            yield Public(path, f"{kind.name}.{node.name}", node, text)


def is_public(each: Public) -> bool:
    """Return False for overloads, and for the loop's methods, which asyncio documents."""
    return "overload" not in {ast.unparse(one) for one in each.node.decorator_list} and "/loop/" not in str(each)


FUNCTIONS = sorted(filter(is_public, functions()), key=str)


def numbers(node: ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[str]:
    """Yield the names of the arguments that are numbers."""
    arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
    for each in arguments:
        kind = ast.unparse(each.annotation) if each.annotation else ""
        if re.match(r"(?:int|float)\b", kind):
            yield each.arg


def raised(node: ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[str]:
    """Yield the names of the exceptions that the function itself raises."""
    for each in ast.walk(node):
        if isinstance(each, ast.Raise) and isinstance(each.exc, ast.Call):
            name = ast.unparse(each.exc.func).split(".")[0]
            if name[0].isupper() and name != "AssertionError":
                yield name


@pytest.mark.parametrize("public", FUNCTIONS, ids=str)
def test_a_number_has_its_unit_in_its_name_or_is_described(public: Public) -> None:
    wrong = [
        name for name in numbers(public.node) if not UNIT.search(name) and not re.search(rf"\b{name}\b", public.text)
    ]
    assert not wrong, f"{public}: say the unit or the meaning of {wrong}"


@pytest.mark.parametrize("public", FUNCTIONS, ids=str)
def test_a_docstring_says_what_is_returned(public: Public) -> None:
    returns = ast.unparse(public.node.returns) if public.node.returns else "None"
    decorators = {ast.unparse(each) for each in public.node.decorator_list}
    is_value = "property" in decorators or public.node.name == "__init__"
    if returns not in {"None", "NoReturn", "Never"} and not is_value:
        assert RESULT.search(public.text), f"{public}: say what it returns"


@pytest.mark.parametrize("public", FUNCTIONS, ids=str)
def test_a_docstring_says_what_is_raised(public: Public) -> None:
    wrong = sorted({name for name in raised(public.node) if name not in public.text})
    assert not wrong, f"{public}: say that it raises {wrong}"
