"""Which core gates run on: the native one, or its own source where there is none.

`PENSTOCK_PURE=1` chooses the source, as do interpreters that cannot load the extension.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import penstock._core

if TYPE_CHECKING:
    from penstock._core.gate import REASONS, Entry, GateCore

__all__ = ["REASONS", "Entry", "GateCore", "plain"]

PACKAGE = "penstock._core_as_source"
# in the order of their imports
MODULES = "pace", "waitqueue", "gate"


def plain() -> Any:
    """The gate's core as plain Python, whether it is built or not: the module `gate`."""
    found = sys.modules.get(f"{PACKAGE}.gate")
    if found is not None:
        return found
    package = sys.modules[PACKAGE] = ModuleType(PACKAGE)
    package.__path__ = []
    for name in MODULES:
        _load(name)
    return sys.modules[f"{PACKAGE}.gate"]


def _load(name: str) -> None:
    path = Path(str(penstock._core.__file__)).with_name(f"{name}.py")
    spec = importlib.util.spec_from_file_location(f"{PACKAGE}.{name}", path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)


def _chosen() -> Any:
    if os.environ.get("PENSTOCK_PURE") == "1":
        return plain()
    try:
        from penstock._core import gate
    except ImportError:
        return plain()
    return gate


if not TYPE_CHECKING:
    _gate = _chosen()
    REASONS, Entry, GateCore = _gate.REASONS, _gate.Entry, _gate.GateCore
