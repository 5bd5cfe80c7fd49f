"""Context variables that are sent with a job to another process: those that the lane's config names, and the trace.

The trace context is OpenTelemetry's, if the program uses it. OpenTelemetry's own propagators write and read it.
"""

from __future__ import annotations

import contextvars
import sys
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["ContextCapture", "run_in_context"]

# values of variables by their references, and trace headers
CarriedContext = tuple[dict[str, Any], dict[str, str]]


class ContextCapture:
    """The named variables of a caller's context. `references` name them, as `"module:name"`."""

    def __init__(self, references: tuple[str, ...]) -> None:
        self._references = references
        # besides the trace, which is captured once OpenTelemetry is imported
        self.is_needed = bool(references)
        self._variables: dict[str, contextvars.ContextVar[Any]] | None = None

    def capture(self, context: contextvars.Context | None) -> CarriedContext | None:
        """Return the values in `context`, or in the current context for None. Return None if there are none.

        Raises AttributeError or ImportError for a reference that names nothing.
        """
        if not self._references and "opentelemetry.trace" not in sys.modules:
            return None
        return self._capture() if context is None else context.run(self._capture)

    def _capture(self) -> CarriedContext | None:
        if self._variables is None:
            self._variables = {reference: resolve_name(reference) for reference in self._references}
        values = {name: variable.get() for name, variable in self._variables.items() if _is_set(variable)}
        trace = _trace()
        return (values, trace) if values or trace else None


def _is_set(variable: contextvars.ContextVar[Any]) -> bool:
    try:
        variable.get()
    except LookupError:
        return False
    return True


def _trace() -> dict[str, str]:
    trace = sys.modules.get("opentelemetry.trace")
    if trace is None or not trace.get_current_span().get_span_context().is_valid:
        return {}
    from opentelemetry import propagate

    headers: dict[str, str] = {}
    propagate.inject(headers)
    return headers


def run_in_context(
    carried: CarriedContext, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> Any:
    """Run `fn`, in the worker, in a context of its own with the carried variables."""
    return contextvars.copy_context().run(_run_inside, carried, fn, args, kwargs)


def _run_inside(
    carried: CarriedContext, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> Any:
    values, headers = carried
    for reference, value in values.items():
        resolve_name(reference).set(value)
    if headers:
        from opentelemetry import context, propagate

        context.attach(propagate.extract(headers))
    return fn(*args, **kwargs)
