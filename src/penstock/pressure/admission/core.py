"""The core of gates and semaphores: the native one, or its Python source.

The source is used with `PENSTOCK_PURE=1`, and by interpreters that cannot load the extension.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import penstock._core.sync
from penstock.purity import is_pure_requested

if TYPE_CHECKING:
    from penstock._core.sync.gate import REASONS, Entry, GateCore
    from penstock._core.sync.turnstile import Turnstile
    from penstock._core.sync.waiting import DONE, Waiter

__all__ = ["DONE", "REASONS", "Entry", "GateCore", "Turnstile", "Waiter", "plain"]

NATIVE = "penstock._core.sync"
PACKAGE = "penstock._core_as_source"
# in import order
MODULES = "estimator", "waiting", "waitqueue", "gate", "turnstile"


def plain(name: str) -> Any:
    """Return the core's module of that name as plain Python, whether it is built or not."""
    if not _is_built(name):
        return importlib.import_module(f"{NATIVE}.{name}")
    if PACKAGE not in sys.modules:
        package = sys.modules[PACKAGE] = ModuleType(PACKAGE)
        package.__path__ = []
        for each in MODULES:
            _load(each)
    return sys.modules[f"{PACKAGE}.{name}"]


def _is_built(name: str) -> bool:
    spec = importlib.util.find_spec(f"{NATIVE}.{name}")
    return spec is not None and not str(spec.origin).endswith(".py")


def _load(name: str) -> None:
    path = Path(str(penstock._core.sync.__file__)).with_name(f"{name}.py")
    spec = importlib.util.spec_from_file_location(f"{PACKAGE}.{name}", path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)


def _chosen(name: str) -> Any:
    if is_pure_requested():
        return plain(name)
    try:
        return importlib.import_module(f"{NATIVE}.{name}")
    except ImportError:
        return plain(name)


if not TYPE_CHECKING:
    _gate = _chosen("gate")
    REASONS, Entry, GateCore = _gate.REASONS, _gate.Entry, _gate.GateCore
    Turnstile = _chosen("turnstile").Turnstile
    _waiting = _chosen("waiting")
    DONE, Waiter = _waiting.DONE, _waiting.Waiter
