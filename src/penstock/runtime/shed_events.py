"""Writes sheds of gates into the flight recorder while it records: a listener makes each shed slower."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

from penstock.pressure.admission import registry
from penstock.tasks.observers.registry import observer_of

if TYPE_CHECKING:
    from penstock.pressure.admission.gate import Gate
    from penstock.tasks.observers.native import NativeObserver

__all__ = ["ShedRecorder"]

# the recording observers of all loops: gates belong to the process
_recording: weakref.WeakSet[NativeObserver] = weakref.WeakSet()


class ShedRecorder:
    """The listener of gates for the observer of one loop."""

    def __init__(self, observer: NativeObserver) -> None:
        # weak: the observer refers to this object
        self._observer = weakref.ref(observer)

    def level_is(self, level: str) -> None:
        """Start or stop for the new level of the observer: sheds are recorded at level trace."""
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
