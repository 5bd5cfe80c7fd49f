"""Names: modules that say what they are, an explicit `__all__`, every public name documented."""

import ast
from pathlib import Path

import pytest

from tests.meta.source import ROOT, shown, sources, tracked

VAGUE = {"utils", "util", "helpers", "helper", "common", "misc"}
MODULES = sources(".py")
Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


@pytest.mark.parametrize("path", tracked(), ids=shown)
def test_no_file_or_folder_is_named_for_nothing(path: Path) -> None:
    names = {*path.relative_to(ROOT).parts[:-1], path.name.split(".")[0]}
    assert not names & VAGUE


@pytest.mark.parametrize("path", MODULES, ids=shown)
def test_a_module_opens_by_saying_what_it_is(path: Path) -> None:
    text = ast.get_docstring(ast.parse(path.read_text()))
    assert text, "no module docstring"
    assert len(text.splitlines()) <= 8, "more than 8 lines: put the essay above the code it justifies"


@pytest.mark.parametrize("path", sources(".pyx"), ids=shown)
def test_a_cython_module_opens_by_saying_what_it_is(path: Path) -> None:
    assert path.read_text().lstrip().startswith(('"""', "#"))


@pytest.mark.parametrize("path", MODULES, ids=shown)
def test_all_is_explicit_and_true(path: Path) -> None:
    tree = ast.parse(path.read_text())
    names = public_names(tree)
    if path.name == "__init__.py" and names is None:
        assert len(tree.body) <= 1, "a package that defines or imports something says so in __all__"
        return
    assert names is not None, "no __all__"
    missing = set(names) - defined(tree)
    assert not missing, f"__all__ names what is not there: {sorted(missing)}"
    assert names == sorted(names, key=order), "__all__ is not sorted"


def order(name: str) -> tuple[int, str]:
    """CONSTANTS, then Classes, then functions, each by the alphabet, as ruff sorts `__all__`."""
    rank = 0 if name.isupper() else 1 if name[:1].isupper() else 2
    return rank, name


@pytest.mark.parametrize("path", MODULES, ids=shown)
def test_every_public_name_is_documented(path: Path) -> None:
    tree = ast.parse(path.read_text())
    names = set(public_names(tree) or ())
    for node in tree.body:
        if isinstance(node, Definition) and node.name in names and not is_overload(node):
            assert ast.get_docstring(node), f"{node.name} has no docstring"


def is_overload(node: Definition) -> bool:
    """Whether it only types a call; the definition after it has the words."""
    return any(isinstance(name, ast.Name) and name.id == "overload" for name in node.decorator_list)


@pytest.mark.parametrize("path", [path for path in MODULES if path.name == "__init__.py"], ids=shown)
def test_an_init_is_a_table_of_contents(path: Path) -> None:
    tree = ast.parse(path.read_text())
    classes = [node.name for node in tree.body if isinstance(node, ast.ClassDef)]
    assert not classes, f"classes in __init__.py: {classes}"
    # __all__ has a line for each name, and the rest is as short
    names = public_names(tree) or []
    assert len(path.read_text().splitlines()) <= 70 + len(names)


def public_names(tree: ast.Module) -> list[str] | None:
    for node in tree.body:
        targets = (
            node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        )
        if any(isinstance(target, ast.Name) and target.id == "__all__" for target in targets):
            return [str(name) for name in ast.literal_eval(node.value)]  # type: ignore[attr-defined]
    return None


def defined(tree: ast.Module) -> set[str]:
    """Every name bound at the top level, or served by a module's `__getattr__`."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, Definition):
            names.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names |= {(alias.asname or alias.name).split(".")[0] for alias in node.names}
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            names.add(node.value)
    return names
