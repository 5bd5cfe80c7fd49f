"""Has the flight recorder keep what gates refuse, while it records: to listen makes each refusal dearer."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

from penstock.pressure.admission import registry
from penstock.tasks.observers.registry import observer_of

if TYPE_CHECKING:
    from penstock.pressure.admission.gate import Gate
    from penstock.tasks.observers.native import NativeObserver

__all__ = ["ShedNotes"]

# those whose recorder runs, of all loops: gates are the process's
_recording: weakref.WeakSet[NativeObserver] = weakref.WeakSet()


class ShedNotes:
    """Listens to gates for one loop's observer."""

    def __init__(self, observer: NativeObserver) -> None:
        # the observer has this for its listener
        self._observer = weakref.ref(observer)

    def level_is(self, level: str) -> None:
        """The observer's level is set: from trace on refusals are noted."""
        observer = self._observer()
        if observer is None:
            return
        was_on = bool(_recording)
        if level == "trace":
            _recording.add(observer)
        else:
            _recording.discard(observer)
        if bool(_recording) != was_on:
            registry.listen(_note if _recording else None)


def _note(gate: Gate, reason: str) -> None:
    observer: Any = observer_of(gate.loop) if gate.loop is not None else None
    if observer is not None and observer in _recording:
        observer.note_work("shed", f"{gate.name}: {reason}", 0)
