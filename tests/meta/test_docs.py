"""The documents: links lead somewhere, Python blocks compile, the commands and targets they name exist."""

import re
from pathlib import Path

import pytest

from tests.meta.source import ROOT, shown, tracked

DOCUMENTS = [path for path in tracked() if path.suffix == ".md"]
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
PYTHON_BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
TARGET = re.compile(r"`make ([a-z]+)`")
PATH = re.compile(r"`((?:src|tests|examples|benchmarks|docs)/[\w./-]+)`")


@pytest.mark.parametrize("path", DOCUMENTS, ids=shown)
def test_links_lead_to_files(path: Path) -> None:
    targets = [link.partition("#")[0] for link in LINK.findall(path.read_text())]
    missing = [link for link in targets if link and ":" not in link and not (path.parent / link).exists()]
    assert not missing


@pytest.mark.parametrize("path", DOCUMENTS, ids=shown)
def test_paths_that_are_named_exist(path: Path) -> None:
    assert not [name for name in PATH.findall(path.read_text()) if not (ROOT / name).exists()]


@pytest.mark.parametrize("path", DOCUMENTS, ids=shown)
def test_python_blocks_compile(path: Path) -> None:
    for block in PYTHON_BLOCK.findall(path.read_text()):
        compile(block, shown(path), "exec", flags=0x2000)  # PyCF_ALLOW_TOP_LEVEL_AWAIT


@pytest.mark.parametrize("path", DOCUMENTS, ids=shown)
def test_make_targets_exist(path: Path) -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert not set(TARGET.findall(path.read_text())) - targets
