"""The documents: links lead somewhere, Python blocks compile, and the commands, targets and names in them exist."""

import ast
import importlib
import re
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import pytest

from penstock import Config
from penstock.config.sources import REMOVED
from penstock.loop import EventLoop
from penstock.testing import VirtualLoop
from tests.meta.source import PACKAGE, ROOT, shown, tracked

DOCUMENTS = [path for path in tracked() if path.suffix == ".md"]
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
IMAGE = re.compile(r"\bsrc(?:set)?=\"([^\"]+)\"")
PYTHON_BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
# Code in a document, and a word of the glossary that is explained there.
CODE = re.compile(r"^```.*?^```|`[^`]*`|\*\*[^*]*\*\*", re.MULTILINE | re.DOTALL)
PRIVATE = re.compile(r"\b(?:who(?:m|ever)?|nobody|somebody|turn(?:s|ed)? away|parked|crews?|guests?)\b", re.IGNORECASE)
TARGET = re.compile(r"`make ([a-z]+)`")
DOTTED = re.compile(r"(?<![\w./-])penstock(?:\.[A-Za-z_]\w*)+")
# Names of files and of loggers.
NO_OBJECTS = {
    "penstock.toml",
    "penstock.tasks.growing",
    "penstock.tasks.hung",
    "penstock.tasks.failed",
    "penstock.tasks.stall",
    "penstock.tasks.stuck",
}
# A key of the config, or an attribute of a loop.
KEY = re.compile(r"`((?:executors|loop|pressure|serve|signals|tasks)\.[a-z]\w*)(?: = [^`]*)?`")
TOP_LEVEL_AWAIT = 0x2000  # PyCF_ALLOW_TOP_LEVEL_AWAIT
PATH = re.compile(r"`((?:src|tests|examples|benchmarks|docs)/[\w./-]+)`")


@pytest.mark.parametrize("path", DOCUMENTS, ids=shown)
def test_links_lead_to_files(path: Path) -> None:
    text = path.read_text()
    targets = [link.partition("#")[0] for link in [*LINK.findall(text), *IMAGE.findall(text)]]
    missing = [link for link in targets if link and ":" not in link and not (path.parent / link).exists()]
    assert not missing


@pytest.mark.parametrize("path", DOCUMENTS, ids=shown)
def test_links_to_a_heading_lead_to_one(path: Path) -> None:
    links = [link.partition("#") for link in LINK.findall(path.read_text()) if "#" in link and ":" not in link]
    assert not [link for link in links if link[2] not in anchors(path.parent / link[0] if link[0] else path)]


def anchors(path: Path) -> set[str]:
    """Return the anchors of a document's headings, as the repository's host makes them."""
    headings = re.findall(r"^#+ (.*)$", path.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", DOCUMENTS, ids=shown)
def test_paths_that_are_named_exist(path: Path) -> None:
    assert not [name for name in PATH.findall(path.read_text()) if not (ROOT / name).exists()]


@pytest.mark.parametrize("path", DOCUMENTS, ids=shown)
def test_documents_use_the_terms_of_the_glossary(path: Path) -> None:
    assert not PRIVATE.findall(CODE.sub("", path.read_text()))


@pytest.mark.parametrize("path", DOCUMENTS, ids=shown)
def test_python_blocks_compile(path: Path) -> None:
    for block in PYTHON_BLOCK.findall(path.read_text()):
        compile(block, shown(path), "exec", flags=TOP_LEVEL_AWAIT)


@pytest.mark.parametrize("path", DOCUMENTS, ids=shown)
def test_make_targets_exist(path: Path) -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert not set(TARGET.findall(path.read_text())) - targets


@pytest.mark.parametrize("path", DOCUMENTS, ids=shown)
def test_dotted_names_exist(path: Path) -> None:
    text = path.read_text()
    names = {*DOTTED.findall(text), *used(text)} - NO_OBJECTS
    assert not sorted(name for name in names if not exists(name))


@pytest.mark.parametrize("path", DOCUMENTS, ids=shown)
def test_config_keys_exist(path: Path) -> None:
    keys = {f"{field.name}.{key.name}" for field in fields(Config) for key in fields(getattr(Config(), field.name))}
    loops = {f"loop.{name}" for kind in (EventLoop, VirtualLoop) for name in dir(kind)} | {
        "loop.history",
        "loop.random",
    }
    former = set(REMOVED) if path.name == "CHANGELOG.md" else set()
    assert not set(KEY.findall(path.read_text())) - keys - loops - former


def used(text: str) -> Iterator[str]:
    """Yield the full name of each attribute of penstock that a Python block imports or reads."""
    for block in PYTHON_BLOCK.findall(text):
        tree = compile(block, "block", "exec", flags=ast.PyCF_ONLY_AST | TOP_LEVEL_AWAIT)
        known = dict(imported(tree))
        yield from known.values()
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in known:
                yield f"{known[node.value.id]}.{node.attr}"


def imported(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """Yield each name that penstock's modules are bound to, and the full name of what is bound."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (
                (one.asname or "penstock", one.name if one.asname else "penstock")
                for one in node.names
                if _is_ours(one.name)
            )
        elif isinstance(node, ast.ImportFrom) and _is_ours(node.module or ""):
            yield from ((one.asname or one.name, f"{node.module}.{one.name}") for one in node.names)


def _is_ours(module: str) -> bool:
    return module.partition(".")[0] == "penstock"


def exists(name: str) -> bool:
    """Return whether the dotted name leads to a module or an attribute."""
    found, module = importlib.import_module("penstock"), "penstock"
    for part in name.split(".")[1:]:
        module = f"{module}.{part}"
        try:
            found = getattr(found, part) if hasattr(found, part) else importlib.import_module(module)
        except ImportError as problem:
            return _is_foreign(problem) and defines(name, module)
    return True


def _is_foreign(problem: ImportError) -> bool:
    """Return whether a package of an extra is not installed here."""
    return not _is_ours(problem.name or "penstock")


def defines(name: str, module: str) -> bool:
    """Return whether the source of a module that cannot be imported here has the name's next part at its top level."""
    path = PACKAGE.parent / Path(*module.split(".")).with_suffix(".py")
    rest = name.removeprefix(module).strip(".").split(".")[0]
    tops = (
        {node.name for node in ast.parse(path.read_text()).body if hasattr(node, "name")} if path.is_file() else set()
    )
    return path.is_file() and (not rest or rest in tops)
