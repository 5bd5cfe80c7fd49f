"""Resolves `"module:name"` references of a config to objects."""

from __future__ import annotations

import importlib
from functools import reduce
from typing import TYPE_CHECKING, Any

from penstock.config.converters import nearest
from penstock.errors import ConfigError, ReferenceNotFoundError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["resolve", "resolve_callable"]


def resolve(reference: object, key: str) -> Any:
    """Return the object that the text `reference` names; return any other object unchanged.

    Raises ReferenceNotFoundError. An exception raised by the import of the module itself propagates.
    """
    if not isinstance(reference, str):
        return reference
    module_name, _, name = reference.partition(":")
    module = _import(module_name, reference, key)
    try:
        return reduce(getattr, name.split("."), module)
    except AttributeError:
        hint = nearest(name, dir(module))
        raise _not_found(reference, key, f"module {module_name!r} has no {name!r}{hint}") from None


def resolve_callable(reference: object, key: str) -> Callable[..., Any]:
    """Return `resolve(reference, key)` if it is callable. Raises ConfigError otherwise."""
    found = resolve(reference, key)
    if not callable(found):
        raise ConfigError.bad_value(key, reference, f"it names a {type(found).__name__}", "something callable")
    return found  # type: ignore[no-any-return]


def _import(module_name: str, reference: str, key: str) -> Any:
    try:
        return importlib.import_module(module_name)
    except ModuleNotFoundError as problem:
        missing = problem.name or ""
        if module_name != missing and not module_name.startswith(f"{missing}."):
            raise
        raise _not_found(reference, key, f"there is no module {missing!r} on sys.path") from None


def _not_found(reference: str, key: str, why: str) -> ReferenceNotFoundError:
    return ReferenceNotFoundError(f"{key} = {reference!r}: {why}", key=key, value=reference)
