"""The choice between a native module of the core and the same module as plain Python.

A module of `_core` with a `.pxd` beside its `.py` is compiled where the core is built. Its source is used with
`PENSTOCK_PURE=1`, and by interpreters that cannot load the extension.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from penstock.purity import is_pure_requested

__all__ = ["chosen", "plain"]

CORE = "penstock._core"
SOURCE = "penstock._core_as_source"
# The modules of each folder in import order: a plain module imports plain modules.
MODULES = {
    "sync": ("estimator", "waiting", "waitqueue", "gate", "turnstile"),
    "workers": ("call", "jobqueue", "tally", "pickled", "frames", "pipe"),
}


def chosen(folder: str, name: str) -> Any:
    """Return the module `penstock._core.{folder}.{name}`: the native one if it can be loaded, else the plain one."""
    if is_pure_requested():
        return plain(folder, name)
    try:
        return importlib.import_module(f"{CORE}.{folder}.{name}")
    except ImportError:
        return plain(folder, name)


def plain(folder: str, name: str) -> Any:
    """Return the module as plain Python, whether it is built or not."""
    if not _is_built(f"{CORE}.{folder}.{name}"):
        return importlib.import_module(f"{CORE}.{folder}.{name}")
    package = f"{SOURCE}.{folder}"
    if package not in sys.modules:
        for parent in (SOURCE, package):
            sys.modules.setdefault(parent, ModuleType(parent)).__path__ = []
        place = Path(str(importlib.import_module(f"{CORE}.{folder}").__file__))
        for each in MODULES[folder]:
            _load(f"{package}.{each}", place.with_name(f"{each}.py"))
    return sys.modules[f"{package}.{name}"]


def _is_built(name: str) -> bool:
    spec = importlib.util.find_spec(name)
    return spec is not None and not str(spec.origin).endswith(".py")


def _load(name: str, path: Path) -> None:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
