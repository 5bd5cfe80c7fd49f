"""`penstock ps`: every process of this user that can be attached to, workers below their supervisor."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from penstock.cli.attached import cells
from penstock.cli.attached.partial import is_partial, partial_reason, shown_loops
from penstock.cli.attached.tables import Column, table, terminal_width
from penstock.cli.attached.target import write_answer, write_lines
from penstock.cli.options import LineParser
from penstock.errors import PenstockError
from penstock.monitor.client import AttachedProcess, processes
from penstock.runtime.supervisor.control_client import ask as ask_supervisor
from penstock.runtime.supervisor.control_client import explain_absence, supervisors

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

__all__ = ["main", "render"]

# the longest wait for one process; all are asked at once
WITHIN_S = 2.0
# threads that ask
MOST_AT_ONCE = 64
COLUMNS = (
    Column("PID", True),
    Column("NAME", True),
    Column("LOOP", True),
    Column("STATE", True),
    Column("UTIL"),
    Column("TASKS"),
    Column("UPTIME"),
    Column("FINDINGS", True),
)

Answer = dict[str, Any]


def main(arguments: Sequence[str]) -> int:
    """Print the table or JSON. A process that does not answer is a row with the reason."""
    parser = LineParser(
        prog="penstock ps",
        usage="penstock ps [options]",
        description="Show the penstock processes of this user: each loop's utilization, tasks and findings.",
    )
    parser.add_argument("--json", action="store_true", help="as JSON")
    options = parser.parse_args(arguments)
    answers, leaders = _answers(processes(), _about), _answers(supervisors(), _workers)
    if options.json:
        write_answer({"processes": list(answers.values()), "supervisors": list(leaders.values())})
    elif answers or leaders:
        write_lines(render(answers, leaders, terminal_width()))
    else:
        write_lines([f"no penstock process of this user runs{explain_absence()}"])
    return 0


def _answers(pids: Sequence[int], question: Any) -> dict[int, Answer]:
    if not pids:
        return {}
    with ThreadPoolExecutor(min(len(pids), MOST_AT_ONCE)) as pool:
        found = dict(zip(pids, pool.map(question, pids), strict=True))
    return {pid: answer for pid, answer in found.items() if answer is not None}


def _about(pid: int) -> Answer | None:
    """Return the answer of a process, or the reason for none; None if it has ended."""
    try:
        with AttachedProcess(pid, within_s=WITHIN_S) as process:
            return process.ask("about")
    except (ProcessLookupError, ConnectionError):
        return None
    except (OSError, PenstockError) as error:
        return {"ok": False, "pid": pid, "error": str(error)}


def _workers(pid: int) -> Answer | None:
    try:
        return {"pid": pid, **ask_supervisor(pid, "workers", within_s=WITHIN_S)}
    except (ProcessLookupError, ConnectionError):
        return None
    except OSError as error:
        return {"ok": False, "pid": pid, "error": str(error)}


# --- the table


def render(answers: Mapping[int, Answer], leaders: Mapping[int, Answer], width: int | None) -> list[str]:
    """Return the lines of the table, and a line for each answer that is partial or missing."""
    rows: list[tuple[str, ...]] = []
    led = {pid: _pids_of(leader, answers) for pid, leader in leaders.items()}
    below = {pid for pids in led.values() for pid in pids}
    for pid in sorted({*answers, *leaders} - below):
        if pid in leaders:
            rows.append(_leader_row(pid, leaders[pid], answers.get(pid), [answers[each] for each in led[pid]]))
        else:
            rows += _rows(pid, answers[pid], "")
        for worker in led.get(pid, ()):
            rows += _rows(worker, answers[worker], "  ")
    notes = [note for pid, answer in sorted({**answers, **leaders}.items()) for note in _notes(pid, answer)]
    return [*table(COLUMNS, rows, width), *([""] if notes else []), *notes]


def _pids_of(leader: Answer, answers: Mapping[int, Answer]) -> list[int]:
    """Return the workers of a supervisor that have answered, in the order of their numbers."""
    said = {worker.get("pid"): worker.get("number") for worker in cells.items(leader, "workers")}
    for pid, answer in answers.items():
        worker = _process(answer).get("worker")
        if isinstance(worker, dict) and worker.get("supervisor") == leader.get("pid"):
            said.setdefault(pid, worker.get("number"))
    known = [(number if isinstance(number, int) else 0, pid) for pid, number in said.items() if isinstance(pid, int)]
    return [pid for _, pid in sorted(known) if pid in answers]


def _leader_row(pid: int, leader: Answer, own: Answer | None, workers: Sequence[Answer]) -> tuple[str, ...]:
    names = [name for name in (_process(worker).get("name") for worker in workers) if name]
    told = len(cells.items(leader, "workers")) if leader.get("ok") else len(workers)
    name = cells.text(names[0]) if names else "serve"
    uptime = cells.seconds(_process(own or {}).get("uptime_s"))
    return str(pid), f"{name} (supervisor)", "-", f"{told} worker{'s' * (told != 1)}", "-", "-", uptime, "-"


def _rows(pid: int, answer: Answer, indent: str) -> Iterator[tuple[str, ...]]:
    """Yield a row for each loop of a process; a row without one if it has none or has not answered."""
    process = _process(answer)
    worker = process.get("worker")
    number = f" [{worker['number']}]" if isinstance(worker, dict) and worker.get("number") else ""
    name, uptime = cells.text(process.get("name")) + number, cells.seconds(process.get("uptime_s"))
    loops = shown_loops(answer)
    for at, loop in enumerate(loops or [{}]):
        first = (f"{indent}{pid}", name) if at == 0 else ("", "")
        figures = cells.share(loop.get("utilization")), cells.count(loop.get("tasks_live"))
        state = _state(loop, answer) if loop or not answer.get("ok", True) else "no loop"
        findings = cells.tally(loop.get("findings"))
        yield *first, _loop_name(loop), state, *figures, uptime if at == 0 else "", findings


def _loop_name(loop: Mapping[str, Any]) -> str:
    return cells.text(" ".join(str(loop[key]) for key in ("name", "implementation") if loop.get(key)) or None)


def _state(loop: Mapping[str, Any], answer: Answer) -> str:
    if not answer.get("ok", True):
        return "no answer"
    blocked = loop.get("blocked")
    blocked_s = blocked.get("lasted_s") if isinstance(blocked, dict) else loop.get("blocked_s")
    if blocked_s is not None:
        return f"blocked {cells.seconds(blocked_s)}"
    return "running" if loop.get("running") else "not running"


def _notes(pid: int, answer: Answer) -> Iterator[str]:
    if not answer.get("ok", True):
        yield f"{pid}: {cells.text(answer.get('error'))}"
    elif is_partial(answer):
        yield f"{pid}: partial answer: {partial_reason(answer)}"


def _process(answer: Mapping[str, Any]) -> dict[str, Any]:
    found = answer.get("process")
    return found if isinstance(found, dict) else {}
