"""The sampler of the screen: it asks the processes in a thread of its own, so that the screen never waits."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from penstock.errors import PenstockError
from penstock.monitor.client import error_line
from penstock.monitor.history import History
from penstock.monitor.rules import Diagnosis, diagnose
from penstock.monitor.rules.engine import ordered
from penstock.monitor.top.merge import merged_figures
from penstock.monitor.top.state import TaskQuery, TopState, TopWish, WatchedState

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from penstock.monitor.figures import Figures
    from penstock.monitor.sources import ProcessSource, ProcessTarget

__all__ = ["TopSampler"]

Answer = dict[str, Any]
# the longest wait for an answer: the screen then shows that there is none
ANSWER_S = 2.0
# rates are of this interval
RATES_S = 2.0
# sites of each loop; the view shows the largest one
MOST_SITES = 20
# two minutes at the default interval
MOST_SNAPSHOTS = 240
# one bar for each cell of the chart's width
MOST_BARS = 60
# processes that are asked at a time
MOST_AT_ONCE = 8


@dataclass
class _Watched:
    target: ProcessTarget
    history: History = field(default_factory=lambda: History(MOST_SNAPSHOTS))
    diagnoses: list[Diagnosis] = field(default_factory=list)
    problem: str = ""
    has_ended: bool = False

    def state(self) -> WatchedState:
        series = tuple((_utilization(each), _delay_s(each)) for each in self.history.series(MOST_BARS))
        return WatchedState(
            self.target.pid,
            self.target.number,
            self.history.over(RATES_S),
            series,
            self.history.findings,
            self.history.latest is not None,
            self.problem,
            self.has_ended,
        )


def _utilization(step: Figures) -> float:
    return max((1.0 if loop.blocked else loop.utilization for loop in step.loops), default=0.0)


def _delay_s(step: Figures) -> float:
    return max((loop.delay.p99_s for loop in step.loops), default=0.0)


class TopSampler:
    """The state of all processes of a source, asked every `interval_s` seconds, and at once after a new wish.

    `notify` is called in the sampler's thread after each round, with its state.
    """

    def __init__(self, source: ProcessSource, interval_s: float, notify: Callable[[TopState], None]) -> None:
        self._source, self._interval_s, self._notify = source, interval_s, notify
        self._watched: dict[int, _Watched] = {}
        self._wish = TopWish()
        self._wakeup = threading.Event()
        self._is_closed = self._is_paused = False
        self._pool = ThreadPoolExecutor(MOST_AT_ONCE, thread_name_prefix="penstock-top")
        self._state = TopState()

    def start(self) -> None:
        """Start to ask."""
        threading.Thread(target=self._run, name="penstock-top", daemon=True).start()

    def close(self) -> None:
        """End the thread after the present question."""
        self._is_closed = True
        self._wakeup.set()
        self._pool.shutdown(wait=False, cancel_futures=True)

    def wish(self, wish: TopWish) -> None:
        """Set the data that is asked for. A new wish is asked at once, also in a pause."""
        if wish != self._wish:
            self._wish = wish
            self._wakeup.set()

    def pause(self, *, is_paused: bool) -> None:
        """Stop or continue to ask for figures."""
        self._is_paused = is_paused
        self._wakeup.set()

    # --- the thread

    def _run(self) -> None:
        while not self._is_closed:
            began_s = time.monotonic()
            self._wakeup.clear()
            try:
                state = self._round()
            except RuntimeError:
                # the pool was shut down
                break
            if not self._is_closed:
                self._notify(state)
            self._wakeup.wait(max(0.01, began_s + self._interval_s - time.monotonic()))
            while self._is_paused and not self._wakeup.is_set():
                self._wakeup.wait(1.0)

    def _round(self) -> TopState:
        wish = self._wish
        if not self._is_paused:
            self._state = self._sampled()
        state = replace(self._state, scope=wish.scope)
        state = replace(state, **self._together(state))
        if wish.tasks is not None:
            state = self._with_tasks(state, wish.tasks)
        if wish.inspected is not None:
            state = self._with_task(state, *wish.inspected)
        return state

    def _sampled(self) -> TopState:
        problem = self._follow()
        present = [each for each in self._watched.values() if not each.has_ended]
        list(self._pool.map(self._sample, present))
        every = sorted(self._watched.values(), key=lambda each: (each.target.number or 0, each.target.pid))
        # the rows of the last answer stay until the next one
        return replace(self._state, processes=tuple(each.state() for each in every), problem=problem)

    def _together(self, state: TopState) -> dict[str, Any]:
        shown = state.shown
        alive = [each for each in shown if not each.has_ended] or list(shown)
        named = [(str(each.number or each.pid), each.figures) for each in alive]
        found = {id(each): pid for pid in (each.pid for each in alive) for each in self._watched[pid].diagnoses}
        every = ordered(each for seen in alive for each in self._watched[seen.pid].diagnoses)
        diagnoses = tuple((found[id(each)] if len(alive) > 1 else None, each) for each in every)
        return {"figures": merged_figures(named), "diagnoses": diagnoses} if named else {}

    def _follow(self) -> str:
        """Update the list of processes. Return why it is unknown, or an empty text."""
        try:
            targets = {target.pid: target for target in self._source.targets()}
        except (OSError, PenstockError) as error:
            for each in self._watched.values():
                each.has_ended = each.has_ended or isinstance(error, ProcessLookupError)
            return error_line(error)
        for pid, target in targets.items():
            known = self._watched.get(pid)
            self._watched[pid] = _Watched(target) if known is None else known
        for pid, each in self._watched.items():
            each.has_ended = pid not in targets
        self._drop_ended()
        return ""

    def _drop_ended(self) -> None:
        """Forget workers that have ended while others run; the last process stays on the screen."""
        ended = [pid for pid, each in self._watched.items() if each.has_ended]
        if len(ended) < len(self._watched):
            for pid in ended:
                if pid != self._wish.scope:
                    del self._watched[pid]

    def _sample(self, watched: _Watched) -> None:
        try:
            answer = self._ask(watched.target.pid, "snapshot", sites=MOST_SITES)
            watched.history.add(answer)
            if not answer.get("partial") and answer.get("mark") != watched.history.mark:
                found = self._ask(watched.target.pid, "findings", since=watched.history.mark)
                if not found.get("partial"):
                    watched.history.add_findings(found)
            watched.problem, watched.diagnoses = "", diagnose(watched.history)
        except ProcessLookupError:
            watched.problem, watched.has_ended = "the process has ended", True
        except (OSError, PenstockError) as error:
            watched.problem = error_line(error)
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            # the answer of another version
            watched.problem = f"its answer cannot be read: {error!r}"

    def _ask(self, pid: int, command: str, **arguments: Any) -> Answer:
        return self._source.ask(pid, command, within_s=ANSWER_S, **arguments)

    # --- tasks

    def _with_tasks(self, state: TopState, query: TaskQuery) -> TopState:
        arguments: dict[str, Any] = {"filter": query.text}
        if query.group:
            arguments["group"] = query.group
        else:
            arguments |= {"sort": query.sort, "descending": query.descends, "limit": query.limit}
        rows: list[Mapping[str, Any]] = []
        problem, total, matched = "", 0, 0
        for each in state.shown:
            if each.has_ended:
                continue
            try:
                answer = self._ask(each.pid, "tasks", **arguments)
            except (OSError, PenstockError) as error:
                problem = error_line(error)
                continue
            if answer.get("partial"):
                problem = "the GIL is held: the tasks cannot be read now"
                continue
            rows += [{**row, "pid": each.pid} for row in answer.get("tasks") or answer.get("groups") or ()]
            total, matched = total + (answer.get("total") or 0), matched + (answer.get("matched") or 0)
        ranked = tuple(sorted(rows, key=lambda row: _rank(row, query), reverse=query.group != "" or query.descends))
        if problem and not rows and _is_same(self._state.query, query):
            # the rows of the last answer stay
            return replace(state, task_problem=problem)
        found: dict[str, Any] = {"query": query, "task_rows": ranked[: query.limit], "task_problem": problem}
        found |= {"task_total": total, "task_matched": matched}
        self._state = replace(self._state, **found)
        return replace(state, **found)

    def _with_task(self, state: TopState, pid: int, number: int) -> TopState:
        answer, problem = {}, ""
        try:
            answer = self._ask(pid, "task", number=number)
            if answer.get("partial"):
                answer, problem = {}, "the GIL is held: the task cannot be read now"
        except (OSError, PenstockError) as error:
            problem = error_line(error)
        return replace(state, inspected=(pid, number), inspection=answer, inspection_problem=problem)


def _is_same(former: TaskQuery | None, query: TaskQuery) -> bool:
    """Return whether both ask for the same kind of rows, perhaps for more or fewer of them."""
    return former is not None and replace(former, limit=query.limit) == query


def _rank(row: Mapping[str, Any], query: TaskQuery) -> float:
    if query.group:
        return float(row.get("count") or 0)
    key = query.sort if query.sort in ("steps", "number") else f"{query.sort}_s"
    return float(row.get(key) or 0)
