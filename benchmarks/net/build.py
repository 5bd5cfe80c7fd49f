"""Builds the programs in C, clients and the echo server, where their source is newer than the program."""

from __future__ import annotations

import os
import shutil
import subprocess
from functools import cache
from pathlib import Path

from benchmarks.machine import ROOT

__all__ = ["build", "shared", "tls_client"]

SOURCES = Path(__file__).resolve().parent
BUILD = ROOT / "benchmarks" / "build"
TLS = ("-DTLS", "-lssl", "-lcrypto")


def build(name: str, sources: Path = SOURCES) -> str:
    """Build `<name>.c` if need be and return the program's path. SystemExit: it cannot be built."""
    if _compiler() is None:
        raise SystemExit("rows with a client need a C compiler: install gcc, or pick others by --only")
    program = _built(name, sources / f"{name}.c", ())
    if program is None:
        raise SystemExit(f"could not build {sources / name}.c: see the compiler's message above")
    return program


@cache
def tls_client() -> str | None:
    """Build the client that speaks TLS and return its path, None where OpenSSL's headers are missing."""
    return _built("client-tls", SOURCES / "client.c", TLS)


def shared(name: str, sources: Path) -> str | None:
    """Build `<name>.c` as a shared library if need be and return its path, None where it cannot be built."""
    return _built(f"{name}.so", sources / f"{name}.c", ("-shared", "-fPIC"))


def _built(name: str, source: Path, flags: tuple[str, ...]) -> str | None:
    program, compiler = BUILD / name, _compiler()
    if program.exists() and program.stat().st_mtime > source.stat().st_mtime:
        return str(program)
    if compiler is None:
        return None
    BUILD.mkdir(exist_ok=True)
    command = [compiler, "-O2", "-Wall", "-Wextra", "-Wno-sign-compare", "-o", str(program), str(source), "-lm", *flags]
    return None if subprocess.run(command, check=False).returncode else str(program)


def _compiler() -> str | None:
    return shutil.which(os.environ.get("CC", "gcc")) or shutil.which("cc")
