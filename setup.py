"""Builds the native core: one extension per module below `penstock/_core`, the Cython directives stated once, here.

Switches, all environment variables:
  PENSTOCK_PURE=1        build no extension: a wheel for every platform, which runs on asyncio's selector loop
  PENSTOCK_SANITIZE=1    address and undefined-behaviour sanitizers, no optimisation
  PENSTOCK_DEBUG=1       keep line numbers and symbols for a debugger: three times the size
"""

import os
import sys
import tempfile
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import BaseError, CompileError

CORE = Path("src/penstock/_core")
# Of such a Python nobody knows how its frames lie in memory: the package is pure there.
NEWER = (3, 16)
# What only tests use: built where the core is built in place, so never in a wheel.
SEAMS = Path("tests/unit/core/seams.pyx")
YES, NO = ("1", "true", "yes", "on"), ("0", "false", "no", "off")
WAY_OUT = (
    "Install gcc and Python's headers (Debian: apt install gcc python3-dev; Fedora: dnf install gcc python3-devel), or "
    "build without it, on asyncio's own loop: PENSTOCK_PURE=1 pip install ."
)
DIRECTIVES = {
    "language_level": 3,
    "boundscheck": False,
    "wraparound": False,
    "cdivision": True,
    "initializedcheck": False,
    "binding": False,
    # an unraisable exception goes to sys.unraisablehook alone: printing a SystemExit first would end the process
    "unraisable_tracebacks": False,
    "embedsignature": True,
    "embedsignature.format": "python",
    "freethreading_compatible": False,
}


def compile_flags() -> tuple[list[str], list[str]]:
    if os.environ.get("PENSTOCK_SANITIZE") == "1":
        flags = ["-O1", "-g", "-fno-omit-frame-pointer", "-fsanitize=address,undefined"]
        return flags, ["-fsanitize=address,undefined"]
    flags = ["-O3", "-fno-semantic-interposition", "-Wno-unused-function"]
    return ([*flags, "-g1"], []) if os.environ.get("PENSTOCK_DEBUG") == "1" else ([*flags, "-g0"], ["-Wl,-s"])


def is_pure_requested() -> bool:
    """Whether `PENSTOCK_PURE` says yes, by the words that `penstock.purity` knows."""
    word = os.environ.get("PENSTOCK_PURE", "").strip().lower()
    if word not in ("", *YES, *NO):
        sys.exit(f"penstock: PENSTOCK_PURE = {word!r}: allowed is true or false (1/0, yes/no, on/off)")
    return word in YES


def sources() -> list[Path]:
    """The `.pyx`, and each `.py` that a `.pxd` gives types: that one also runs as it is, where nothing is built."""
    typed = [path for path in CORE.rglob("*.py") if path.stem != "__init__" and path.with_suffix(".pxd").exists()]
    seams = [SEAMS] if "--inplace" in sys.argv and SEAMS.exists() else []
    return sorted([*CORE.rglob("*.pyx"), *typed, *seams])


def extensions() -> list[Extension]:
    if is_pure_requested() or not sys.platform.startswith("linux"):
        return []
    if sys.version_info >= NEWER:
        print("penstock: no native core for this Python, whose frames are not known yet (_core/_sys/frames.pxd)")
        return []
    if "t" in sys.abiflags:
        print("penstock: the native core turns the GIL on in this free-threaded Python")
    from Cython.Build import cythonize

    compile_args, link_args = compile_flags()
    found = [
        Extension(
            "penstock._core.seams" if source == SEAMS else ".".join(source.relative_to("src").with_suffix("").parts),
            [str(source)],
            extra_compile_args=compile_args,
            extra_link_args=link_args,
        )
        for source in sources()
    ]
    # A directive may have changed here: Cython asks only for the sources.
    made = [path for one in found if (path := Path(one.sources[0]).with_suffix(".c")).exists()]
    force = any(path.stat().st_mtime < Path(__file__).stat().st_mtime for path in made)
    return cythonize(found, compiler_directives=DIRECTIVES, include_path=["src"], force=force)


class BuildCore(build_ext):
    """The build of the core: without a working C compiler it ends in one line that says the way out."""

    def build_extensions(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            trial = Path(folder, "trial.c")
            trial.write_text("#include <Python.h>\n")
            try:
                self.compiler.compile([str(trial)], output_dir=folder)
            except (BaseError, CompileError) as problem:
                sys.exit(f"penstock: no native core can be built here ({problem}). {WAY_OUT}")
        super().build_extensions()


setup(
    ext_modules=extensions(),
    cmdclass={"build_ext": BuildCore},
    options={"build_ext": {"parallel": os.cpu_count() or 1}},
)
