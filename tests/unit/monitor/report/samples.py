"""Hand-made traces and findings for reports."""

from typing import Any

from tests.support import snapshots

Answer = dict[str, Any]
NAMES = {"M": "process_name"}


def finding(
    kind: str = "stall", message: str = "a callback lasted 0.350 s", since_s: float = 100.0, **changes: Any
) -> Answer:
    """Return a finding as the protocol has it."""
    evidence = {"lasted_s": 0.35, "ended": True, "cause": "python", "stack": ['File "app.py", line 41, in handler']}
    plain = {"site": snapshots.place(), "task": "Task-1", "loop": "penstock-1", "wall_time_s": 1_700_000_000.0}
    return {"kind": kind, "message": message, "since_s": since_s, **plain, "evidence": evidence, **changes}


def step(at_s: float, took_s: float = 0.001, name: str = "app.py:41 in handler", kind: str = "step") -> Answer:
    """Return the record of a step."""
    return {"ph": "X", "pid": 1, "tid": 1, "ts": at_s * 1e6, "dur": took_s * 1e6, "name": name, "cat": kind}


def trace(*records: Answer, findings: list[Answer] | None = None, loop: str = "penstock-1") -> Answer:
    """Return a trace of one loop with these records."""
    heading = {"ph": "M", "pid": 1, "tid": 0, "name": "process_name", "args": {"name": f"loop {loop}"}}
    other = {"format": 1, "pid": "4711", "python": "3.13.0", "at_s": 101.0, "wall_time_s": 1_700_000_001.0}
    return {"otherData": other | {"findings": findings or []}, "traceEvents": [heading, *records]}


def busy_trace(
    seconds: float = 4.0, findings: list[Answer] | None = None, name: str = "app.py:41 in handler"
) -> Answer:
    """Return a trace with a step each 10 ms, a job, a collection and a task, until 100.5 s."""
    begin_s = 100.5 - seconds
    steps = [step(begin_s + number / 100, 0.002, name) for number in range(int(seconds * 100))]
    more = [step(99.0, 0.2, "io", "job"), step(99.5, 0.01, "gc: generation 2", "gc")]
    life = [
        {"ph": phase, "cat": "task", "id": 7, "pid": 1, "tid": 1, "ts": at_s * 1e6, "name": name}
        for phase, at_s in (("b", 99.0), ("e", 100.0))
    ]
    return trace(*steps, *more, *life, findings=findings)
