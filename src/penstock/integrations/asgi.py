"""Finds an ASGI application by its import string and checks its signature, before a server starts.

Errors about the argument are raised here. An error of the application's own import passes through.
"""

import importlib
import importlib.machinery
import inspect
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

__all__ = ["check_app", "check_factory", "check_target", "load_app"]

App = Callable[..., Any]


def load_app(target: str, *, factory: bool = False, wsgi: bool = False) -> App:
    """Return the application that `module:attribute` names; with `factory` the function that makes it, not called.

    Raises ValueError for a malformed target, ImportError for a missing module, AttributeError for a missing attribute
    and TypeError for an object that no ASGI server can call.
    """
    module_name, colon, path = target.partition(":")
    if not (module_name and colon and path):
        raise ValueError(_malformed(target))
    found = _find(_import(module_name, path), module_name, path)
    return check_factory(found, target) if factory else check_app(found, target, wsgi=wsgi)


def check_target(target: str) -> None:
    """Raise ValueError or ImportError for a target that names no module, without an import of the module."""
    module_name, colon, path = target.partition(":")
    if not (module_name and colon and path):
        raise ValueError(_malformed(target))
    search: Sequence[str] | None = None
    name = ""
    for step in module_name.split("."):
        name = f"{name}.{step}".removeprefix(".")
        found = importlib.machinery.PathFinder.find_spec(name, search)
        if found is None:
            if not name.count(".") and name in sys.builtin_module_names:
                return
            raise _missing(name, module_name, path)
        if found.submodule_search_locations is None:
            return
        search = list(found.submodule_search_locations)


def _malformed(target: str) -> str:
    module_name, _, path = target.partition(":")
    hint = _suggestion(module_name, path or "app") or "such as myservice.main:app"
    return f"{target!r} is not of the form module:app, {hint}"


def _missing(missing: str, name: str, path: str) -> ImportError:
    if suggestion := _suggestion(name, path):
        return ImportError(f"{name!r} is a file's name, not a module's: {suggestion}")
    where = sys.path[0] or "."
    return ImportError(f"no module named {missing!r} (looked in {where} and the installed packages)")


def check_app(app: object, name: str, *, wsgi: bool = False) -> App:
    """Return the object. Raises TypeError unless it can be called as an ASGI application, or a WSGI one with `wsgi`."""
    if wsgi and callable(app) and _takes(app, 2):
        return app
    if wsgi:
        raise TypeError(f"{name} is not a WSGI application: it cannot be called as app(environ, start_response)")
    if not callable(app):
        raise TypeError(f"{name} is not an ASGI application but {_kind(app)}: it cannot be called")
    # ASGI 3 takes scope, receive and send; ASGI 2, still served by uvicorn, takes the scope alone.
    if not (_takes(app, 3) or _takes(app, 1)):
        form = "app(scope, receive, send)"
        raise TypeError(f"{name} is not an ASGI application: it cannot be called as {form}{_hint(app)}")
    return app


def check_factory(factory: object, name: str) -> App:
    """Return the object. Raises TypeError unless it can be called without an argument."""
    if not callable(factory):
        raise TypeError(f"{name} is not a factory but {_kind(factory)}: it cannot be called")
    if not _takes(factory, 0):
        raise TypeError(f"{name} is not a factory: it cannot be called with no argument")
    return factory


def _suggestion(module_name: str, path: str) -> str:
    """Return a suggestion for a target that is a file's name; "" for any other target."""
    if not module_name.endswith(".py") and os.sep not in module_name:
        return ""
    steps = [step for step in module_name.removesuffix(".py").split(os.sep) if step not in ("", ".")]
    return f"did you mean {'.'.join(steps)}:{path}?"


def _import(name: str, path: str) -> object:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        # a module that the application misses is the application's own error
        missing = error.name or ""
        if name != missing and not name.startswith(missing + "."):
            raise
        raise _missing(missing, name, path) from None


def _find(module: object, module_name: str, path: str) -> object:
    found = module
    for step in path.split("."):
        if not hasattr(found, step):
            raise AttributeError(f"module {module_name!r} has no attribute {path!r}")
        found = getattr(found, step)
    return found


def _takes(app: Callable[..., object], count: int) -> bool:
    try:
        inspect.signature(app).bind(*range(count))
    except TypeError:
        return False
    except ValueError:
        return True  # written in C, without a signature: only a call can show it
    return True


def _hint(app: Callable[..., object]) -> str:
    if _takes(app, 2):
        return "; two arguments look like WSGI, which needs --interface wsgi"
    return "; if it makes the application, add --factory" if _takes(app, 0) else ""


def _kind(found: object) -> str:
    return "a module" if inspect.ismodule(found) else f"{type(found).__name__} {found!r:.40}"
