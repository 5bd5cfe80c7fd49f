"""A thread that observes a running service from outside and prints each kind of fault once."""

import threading
import time
from collections.abc import Callable

from penstock.errors import PenstockError
from penstock.monitor.client import AttachedProcess
from penstock.monitor.history import History
from penstock.monitor.rules import Diagnosis, diagnose

EVERY_S = 0.5
ATTACH_S = 10.0


class Watch:
    """The faults of a process so far, by kind. `say` prints a line."""

    def __init__(self, pid: int, say: Callable[[str], None]) -> None:
        self._pid = pid
        self._say = say
        self._history = History(most=120)
        self._stopping = threading.Event()
        self._changed = threading.Condition()
        # the first diagnosis of each kind
        self.seen: dict[str, Diagnosis] = {}
        self.error = ""
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def wait_for(self, kind: str, within_s: float) -> Diagnosis | None:
        """Return the first diagnosis of a kind, which may come within the time."""
        with self._changed:
            self._changed.wait_for(lambda: kind in self.seen or bool(self.error), within_s)
        return self.seen.get(kind)

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join(ATTACH_S)

    def _run(self) -> None:
        try:
            with self._attached() as process:
                while not self._stopping.wait(EVERY_S):
                    self._look(process)
        except (OSError, PenstockError) as error:
            with self._changed:
                self.error = str(error)
                self._changed.notify_all()

    def _attached(self) -> AttachedProcess:
        until_s = time.monotonic() + ATTACH_S
        while True:
            try:
                return AttachedProcess(self._pid)
            except ProcessLookupError:
                # the socket is made a moment after the loop
                if time.monotonic() > until_s:
                    raise
                time.sleep(0.1)

    def _look(self, process: AttachedProcess) -> None:
        self._history.add(process.ask("snapshot"))
        answer = process.ask("findings", since=self._history.mark)
        if not answer.get("partial"):
            self._history.add_findings(answer)
        for each in diagnose(self._history):
            if each.kind not in self.seen:
                self._say(f"what is wrong: {each.line}")
                with self._changed:
                    self.seen[each.kind] = each
                    self._changed.notify_all()
