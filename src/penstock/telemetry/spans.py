"""OpenTelemetry spans of stalls and failed tasks, with their real begin and end. Extra `otel`.

A span is made from a finding, afterwards. Knows a finding only by its fields.
"""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["FindingFields", "Spans", "span_of"]

# kind of finding -> the name of its span; other kinds have none
SPAN_NAMES = {
    "stall": "asyncio.eventloop.stall",
    "exception_unretrieved": "asyncio.task.failed",
    "failed": "asyncio.task.failed",
}
# the evidence that is the span's length in seconds; the first one present
DURATIONS = ("lasted_s", "age_s")


class FindingFields(Protocol):
    """A finding: the fields of `penstock.tasks.Finding` that a span has."""

    @property
    def kind(self) -> str:
        """The kind of fault."""

    @property
    def message(self) -> str:
        """One line for people."""

    @property
    def site(self) -> Any:
        """The place where the task was created."""

    @property
    def task(self) -> str | None:
        """The task's name."""

    @property
    def wall_time_s(self) -> float:
        """The begin, on the clock of time.time()."""

    @property
    def loop(self) -> str:
        """The loop's name."""

    @property
    def evidence(self) -> Mapping[str, Any]:
        """Text and numbers about the fault."""


class Spans:
    """A listener for findings that records a span for each stall and each failed task. Any thread may call it.

    `tracer` is by default the global provider's. Raises ImportError if opentelemetry-api is not installed.
    """

    def __init__(self, tracer: Any = None) -> None:
        self._tracer = tracer if tracer is not None else _trace().get_tracer("penstock")

    def __call__(self, finding: FindingFields) -> None:
        """Record a span of the finding if its kind has one; of a stall, when it has ended."""
        if finding.kind in SPAN_NAMES and finding.evidence.get("ended", True):
            span_of(finding, self._tracer)


def span_of(finding: FindingFields, tracer: Any, *, clock: Callable[[], float] = time.time) -> Any:
    """Record the finding as a span in a trace of its own. Return the ended span.

    It starts at `wall_time_s` and lasts for the evidence's `lasted_s` or `age_s` seconds, else until now. `clock`
    returns seconds as time.time() does. Raises ImportError if opentelemetry-api is not installed.
    """
    from opentelemetry.context import Context

    trace = _trace()
    start_ns = round((finding.wall_time_s or clock()) * 1e9)
    lasted_s = next((finding.evidence[key] for key in DURATIONS if key in finding.evidence), None)
    lasted_ns = round(clock() * 1e9) - start_ns if lasted_s is None else round(float(lasted_s) * 1e9)
    # the calling thread's own span is unrelated
    span = tracer.start_span(
        SPAN_NAMES.get(finding.kind, f"asyncio.task.{finding.kind}"),
        context=Context(),
        attributes=_attributes(finding),
        start_time=start_ns,
    )
    span.set_status(trace.Status(trace.StatusCode.ERROR, finding.message))
    span.end(start_ns + max(lasted_ns, 0))
    return span


def _attributes(finding: FindingFields) -> dict[str, Any]:
    named = {
        "asyncio.eventloop.name": finding.loop,
        "asyncio.finding.kind": finding.kind,
        "asyncio.task.name": finding.task,
        **_site(finding.site),
    }
    evidence = {f"asyncio.finding.{key}": _plain(value) for key, value in finding.evidence.items()}
    return {key: value for key, value in (named | evidence).items() if value is not None}


def _site(site: Any) -> dict[str, Any]:
    if site is None or not site.file:
        return {}
    return {"code.file.path": site.file, "code.line.number": site.line, "code.function.name": site.function}


def _plain(value: Any) -> Any:
    """Return the value as an attribute: text, a number or a list of text; any other value as JSON."""
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, list | tuple) and all(isinstance(item, str) for item in value):
        return list(value)
    return json.dumps(value, default=str)


def _trace() -> Any:
    try:
        from opentelemetry import trace
    except ImportError:
        raise ImportError("OpenTelemetry's spans need opentelemetry-api: pip install 'penstock[otel]'") from None
    return trace
