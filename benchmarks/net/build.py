"""Builds the programs in C, clients and the echo server, where their source is newer than the program."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from benchmarks.machine import ROOT

__all__ = ["build"]

SOURCES = Path(__file__).resolve().parent
BUILD = ROOT / "benchmarks" / "build"


def build(name: str, sources: Path = SOURCES) -> str:
    """Build `<name>.c` if need be and return the program's path. SystemExit: it cannot be built."""
    source, program = sources / f"{name}.c", BUILD / name
    if program.exists() and program.stat().st_mtime > source.stat().st_mtime:
        return str(program)
    compiler = shutil.which(os.environ.get("CC", "gcc")) or shutil.which("cc")
    if compiler is None:
        raise SystemExit("rows with a client need a C compiler: install gcc, or pick others by --only")
    BUILD.mkdir(exist_ok=True)
    command = [compiler, "-O2", "-Wall", "-Wextra", "-Wno-sign-compare", "-o", str(program), str(source), "-lm"]
    if subprocess.run(command, check=False).returncode:
        raise SystemExit(f"could not build {source}: see the compiler's message above")
    return str(program)
