"""Sources for the meta tests: the tracked files, and the imports of a `.py`, `.pyx` or `.pxd`."""

import ast
import re
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "penstock"
CIMPORT = re.compile(r"^\s*(?:from\s+([\w.]+)\s+(?:c?import)\s+(.+)|c?import\s+([\w., ]+))", re.MULTILINE)


@cache
def tracked() -> list[Path]:
    """Every file of the repository that git does not ignore."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    try:
        names = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.splitlines()
    except (OSError, subprocess.CalledProcessError):
        return _found()  # an unpacked archive, or a machine without git
    return [ROOT / name for name in names if (ROOT / name).is_file()]


def _found() -> list[Path]:
    made = {"build", "dist", "__pycache__"}
    paths = (path for path in ROOT.rglob("*") if path.is_file() and path.suffix not in {".so", ".c", ".pyc"})
    parts = ((path, path.relative_to(ROOT).parts) for path in paths)
    return [path for path, names in parts if not any(name.startswith(".") or name in made for name in names)]


def sources(*endings: str) -> list[Path]:
    """The package's files with one of the endings."""
    return [path for path in tracked() if path.suffix in endings and path.is_relative_to(PACKAGE)]


def python_files() -> list[Path]:
    """Every Python file of the repository."""
    return [path for path in tracked() if path.suffix == ".py"]


def shown(path: Path) -> str:
    """A path as a message shows it."""
    return str(path.relative_to(ROOT))


def module_name(path: Path) -> str:
    """`penstock.loop.native` for its file."""
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path) -> set[str]:
    """The full names that a file imports, `from` imports as module.name."""
    if path.suffix == ".py":
        return set(_python_imports(path))
    return set(_cython_imports(path))


def _python_imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = _absolute(path, node.module or "", node.level)
            yield from (f"{base}.{alias.name}" for alias in node.names)


def _cython_imports(path: Path) -> Iterator[str]:
    for module, names, plain in CIMPORT.findall(path.read_text()):
        if plain:
            yield from (name.split(" as ")[0].strip() for name in plain.split(","))
            continue
        level = len(module) - len(module.lstrip("."))
        base = _absolute(path, module.lstrip("."), level)
        yield from (f"{base}.{name.split(' as ')[0].strip('() ')}" for name in names.split(","))


def _absolute(path: Path, module: str, level: int) -> str:
    if not level:
        return module
    package = module_name(path).split(".")
    package = package if path.stem == "__init__" else package[:-1]
    return ".".join([*package[: len(package) - level + 1], *([module] if module else [])])
