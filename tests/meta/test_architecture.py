"""docs/architecture.md: the table of modules is the tree, no more and no less.

`python -m tests.meta.test_architecture` rewrites the first two columns after a move. A moved module takes its row's
purpose with it; the purpose of a new package is left as `?` and fails the test until it is written.
"""

from dataclasses import dataclass

from tests.meta.source import PACKAGE, ROOT, sources

PAGE = ROOT / "docs" / "architecture.md"
BEGIN = "| package | modules | purpose |\n| --- | --- | --- |\n"
UNWRITTEN = "?"
Module = tuple[str, str]


@dataclass
class Row:
    """A row of the table: some modules of one package, and what they are for."""

    package: str
    modules: list[str]
    purpose: str

    def __str__(self) -> str:
        return f"| `{self.package}` | {' '.join(f'`{name}`' for name in self.modules)} | {self.purpose} |\n"


def tree() -> set[Module]:
    """Return the package and the name of each module, native ones among them."""
    paths = [path for path in sources(".py", ".pyx", ".pxd") if path.stem != "__init__"]
    return {(path.parent.relative_to(PACKAGE).as_posix(), path.stem) for path in paths}


def split(text: str) -> tuple[str, list[Row], str]:
    """Return the page before the table, the table's rows, and the page after it."""
    before, found, rest = text.partition(BEGIN)
    assert found, f"docs/architecture.md has no table that begins with {BEGIN!r}"
    lines = rest.splitlines(keepends=True)
    count = next((number for number, line in enumerate(lines) if not line.startswith("|")), len(lines))
    return before, [parsed(line) for line in lines[:count]], "".join(lines[count:])


def parsed(line: str) -> Row:
    package, modules, purpose = (cell.strip() for cell in line.strip().strip("|").split("|", 2))
    return Row(package.strip("`"), modules.replace("`", "").split(), purpose)


def listed(rows: list[Row]) -> list[Module]:
    return [(row.package, name) for row in rows for name in row.modules]


def updated(rows: list[Row], modules: set[Module]) -> list[Row]:
    """Return rows that list exactly these modules, each with the purpose that its module or its package had."""
    purposes = {name: row.purpose for row in rows for name in row.modules if (row.package, name) not in modules}
    kept = [
        Row(row.package, [name for name in row.modules if (row.package, name) in modules], row.purpose) for row in rows
    ]
    kept = [row for row in kept if row.modules]
    for package, name in sorted(modules - set(listed(kept))):
        purpose = purposes.get(name)
        same = [row for row in kept if row.package == package]
        fitting = [row for row in same if row.purpose == purpose] or same[-1:]
        if fitting:
            fitting[-1].modules.append(name)
        else:
            kept.insert(_place(kept, package), Row(package, [name], purpose or UNWRITTEN))
    return kept


def _place(rows: list[Row], package: str) -> int:
    """Return the place of a new row: after the rows of the packages above it, or at the end."""
    above = [number for number, row in enumerate(rows, 1) if f"{package}/".startswith(f"{row.package}/")]
    return max(above, default=len(rows))


HELP = "run .venv/bin/python -m tests.meta.test_architecture, and read the rows it changed in docs/architecture.md"


def test_every_module_is_in_the_table_once() -> None:
    found = listed(split(PAGE.read_text())[1])
    assert sorted(found) == sorted(tree()), HELP


def test_every_row_has_a_purpose() -> None:
    assert not [str(row) for row in split(PAGE.read_text())[1] if row.purpose == UNWRITTEN]


def test_a_moved_module_takes_its_purpose_along() -> None:
    rows = [Row("tasks", ["graph", "waits"], "the await graph"), Row("tasks", ["logs"], "records")]
    modules = {("tasks/awaits", "graph"), ("tasks", "waits"), ("tasks", "logs"), ("tasks", "new"), ("web", "page")}
    assert [(row.package, row.modules, row.purpose) for row in updated(rows, modules)] == [
        ("tasks", ["waits"], "the await graph"),
        ("tasks", ["logs", "new"], "records"),
        ("tasks/awaits", ["graph"], "the await graph"),
        ("web", ["page"], UNWRITTEN),
    ]


def main() -> None:
    before, rows, after = split(PAGE.read_text())
    PAGE.write_text(before + BEGIN + "".join(map(str, updated(rows, tree()))) + after)


if __name__ == "__main__":
    main()
