"""The repository: it names no place outside itself, and its pieces say the same."""

import re
import tomllib
from pathlib import Path

import pytest

import penstock
from tests.conftest import CORES, ONCE
from tests.meta.source import ROOT, shown, tracked

# Spelled apart, so that this file does not name them either.
FORBIDDEN = [
    "py" + "pi.org",
    "python" + "hosted.org",
    "--index" + "-url",
    "--extra-index" + "-url",
    "../" + "shared",
    "/" + "work/",
]
TEXT = [path for path in tracked() if path.suffix not in {".png", ".svg", ".json"}]


@pytest.mark.parametrize("path", TEXT, ids=shown)
def test_a_file_names_no_registry_and_no_place_outside(path: Path) -> None:
    text = path.read_text(errors="replace")
    assert not [word for word in FORBIDDEN if word in text]


def test_the_version_is_the_same_everywhere() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert declared == penstock.__version__
    assert re.search(rf"^## {re.escape(declared)}\b", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)


def test_the_base_install_needs_nothing() -> None:
    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"] == []


def test_the_package_says_where_it_lives() -> None:
    urls = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["urls"]
    assert {"Homepage", "Documentation", "Source", "Issues", "Changelog"} == set(urls)
    assert all(url.startswith("https://") for url in urls.values())


def test_setup_stays_short() -> None:
    assert len((ROOT / "setup.py").read_text().splitlines()) <= 110


@pytest.mark.parametrize("place", ONCE + CORES)
def test_a_place_whose_tests_some_legs_leave_out_is_there(place: str) -> None:
    path, _, beginning = place.partition("::")
    assert (ROOT / "tests" / path).exists()
    assert beginning in (ROOT / "tests" / path).read_text() if beginning else True
