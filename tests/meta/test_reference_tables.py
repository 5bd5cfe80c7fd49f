"""The tables of the documents name what the code has: parameters, reasons and fields, all of them and no others."""

import re
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from inspect import signature
from typing import Any

import pytest

import penstock
from penstock.integrations.admission import AdmissionMiddleware
from penstock.pressure import LoopStatistics
from penstock.testing import Link
from tests.meta.source import ROOT

FIRST_CELL = re.compile(r"^\| ((?:`[^`|]+`(?:, )?)+)", re.MULTILINE)
CODE = re.compile(r"`(\w+)")


@dataclass(frozen=True)
class Table:
    """A table under a heading of a document, and the names of the code that it is about."""

    document: str
    heading: str
    names: frozenset[str]

    def section(self) -> str:
        text = (ROOT / "docs" / self.document).read_text()
        found = re.search(rf"^#+ {re.escape(self.heading)}$\n(.*?)(?=^#|\Z)", text, re.MULTILINE | re.DOTALL)
        assert found, f"docs/{self.document} has no heading {self.heading!r}"
        return found[1]


def parameters(function: Callable[..., Any], *without: str) -> frozenset[str]:
    return frozenset(signature(function).parameters) - {"self", *without}


def options() -> frozenset[str]:
    """Return the names of a call's options."""
    return frozenset(sys.modules[type(penstock.offload).__module__].OffloadOptions.__annotations__)


def table(document: str, heading: str, names: Iterable[str]) -> Table:
    return Table(document, heading, frozenset(names))


TABLES = [
    table("pressure.md", "The gate", parameters(penstock.Gate)),
    table("pressure.md", "Refusals", penstock.Gate(1).statistics().sheds),
    table("pressure-loop.md", "Statistics", (field.name for field in fields(LoopStatistics))),
    table(
        "pressure-integrations.md",
        "ASGI: Starlette, FastAPI, Litestar, Django, none",
        parameters(AdmissionMiddleware, "app"),
    ),
    table("executors.md", "Calling", options()),
    table("testing.md", "The network", parameters(Link)),
]


@pytest.mark.parametrize("table", TABLES, ids=lambda table: f"{table.document}-{table.heading}")
def test_a_table_names_what_the_code_has(table: Table) -> None:
    rows = {name for cell in FIRST_CELL.findall(table.section()) for name in CODE.findall(cell)}
    assert table.names <= set(CODE.findall(table.section())), "not documented"
    assert rows <= table.names, "documented, but not in the code"
