"""The commands that attach to a process, with scripted answers."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

import pytest

from penstock.cli.attached import follow, ps, target
from penstock.cli.entry import ACTIONS, main
from penstock.monitor.client import Refused

LOOKING = ("ps", "tasks", "stacks", "findings", "cancellations", "trace")
PID = 4242
ESCAPE = "\x1b"
PLACE = {"file": "/srv/app.py", "line": 41, "function": "handler", "text": "/srv/app.py:41 in handler"}
FACTS = {"ok": True, "version": 1, "partial": False, "pid": PID}
PARTIAL = {
    "ok": True,
    "partial": True,
    "pid": PID,
    "reason": "the GIL was not available for 0.061505535 s",
    "unread": ["tasks", "gates"],
    "loops": [
        {"name": "main", "running": True, "turns": 12, "cpu_s": 0.5, "blocked": {"lasted_s": 3.2, "kind": "callback"}}
    ],
    "threads": [{"native_id": 77, "name": "python", "state": "R", "cpu_s": 1.0}],
}
TASK = {
    "number": 7,
    "name": "worker",
    "loop": "main",
    "site": PLACE,
    "state": "waiting",
    "age_s": 12.0,
    "running_s": 0.25,
    "ready_s": 0.002,
    "waiting_s": 11.0,
    "steps": 1200,
}
GROUP = {"count": 20, "names": ["a", "b"], "frames": [PLACE], "awaits": "lock (held)", "awaits_kind": "lock"}
FINDING = {
    "kind": "stall",
    "message": "a callback lasted 0.3 s in app.py:41 (python, blocked in time.sleep)",
    "site": PLACE,
    "wall_time_s": 1796140800.0,
}
CANCELLATION = {
    "at_s": 12.0,
    "wall_time_s": 1796140800.0,
    "task": {"name": "fetch", "number": 8, "site": PLACE},
    "by": {"name": "refresh", "number": 7, "site": PLACE},
    "thread": "MainThread",
    "place": {**PLACE, "line": 52, "function": "stop"},
    "chain": ["refresh", "watch"],
}
LOOP = {
    "name": "main",
    "implementation": "penstock",
    "running": True,
    "utilization": 0.42,
    "tasks_live": 1234,
    "findings": {"stall": 2},
    "blocked_s": None,
}


def about(pid: int, *, worker: Mapping[str, int] | None = None, **loop: object) -> dict[str, Any]:
    process = {"pid": pid, "name": "serve app:app", "uptime_s": 90.0, "worker": worker}
    return {**FACTS, "pid": pid, "process": process, "loops": [{**LOOP, **loop}]}


class Scripted:
    """A stand-in for the connection to a process. An answer that is an exception is raised."""

    answers: ClassVar[dict[str, list[Any]]] = {}
    asked: ClassVar[list[dict[str, Any]]] = []

    def __init__(self, pid: int, *, within_s: float = 5.0) -> None:
        self.pid = pid
        if pid == 1:
            raise ProcessLookupError("no penstock process 1 of this user can be attached to")
        if pid == 2:
            raise PermissionError("process 2 belongs to another user")

    def ask(self, command: str, *, within_s: float | None = None, **arguments: Any) -> dict[str, Any]:
        self.asked.append({"command": command, "pid": self.pid, **arguments})
        script = self.answers[f"{command} {self.pid}" if f"{command} {self.pid}" in self.answers else command]
        answer = script.pop(0) if len(script) > 1 else script[0]
        if isinstance(answer, BaseException):
            raise answer
        found: dict[str, Any] = {**FACTS, **answer}
        return found

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        pass


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> type[Scripted]:
    Scripted.answers, Scripted.asked = {}, []
    monkeypatch.setattr(target, "AttachedProcess", Scripted)
    monkeypatch.setattr(target, "processes", lambda: [PID])
    monkeypatch.setattr(ps, "AttachedProcess", Scripted)
    monkeypatch.setattr(ps, "processes", lambda: [PID])
    monkeypatch.setattr(ps, "supervisors", list)
    monkeypatch.setattr(follow, "HELD_S", 0.0)
    return Scripted


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = main(arguments)
    told = capsys.readouterr()
    return code, told.out, told.err


# --- the process that is meant


def test_the_only_process_need_not_be_named(script: type[Scripted], capsys: pytest.CaptureFixture[str]) -> None:
    script.answers["tasks"] = [{"tasks": [], "total": 0, "matched": 0}]
    assert run(capsys, "tasks") == (0, "0 of 0 tasks\n", "")
    assert script.asked[0]["pid"] == PID


@pytest.mark.parametrize("command", ["tasks", "stacks", "trace", "findings", "gc"])
def test_without_or_with_several_processes_one_must_be_named(
    command: str, script: type[Scripted], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(target, "processes", lambda: [7, 8])
    code, out, err = run(capsys, command)
    assert (code, out, err) == (2, "", f"penstock {command}: several processes run, choose one by PID: 7, 8\n")
    monkeypatch.setattr(target, "processes", list)
    code, out, err = run(capsys, command)
    assert code == 2
    assert err.startswith(f"penstock {command}: no penstock process of this user runs")


def test_exit_codes_tell_no_such_process_from_a_refusal(
    script: type[Scripted], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(capsys, "tasks", "1")[0] == 2
    assert run(capsys, "tasks", "2") == (1, "", "penstock tasks: process 2 belongs to another user\n")
    script.answers["cancel"] = [Refused("cancel is an action: the process allows none")]
    assert run(capsys, "cancel", "7") == (1, "", "penstock cancel: cancel is an action: the process allows none\n")


@pytest.mark.parametrize("error", [ConnectionError("process 4242 ended the connection"), TimeoutError("no answer")])
def test_a_process_that_ends_while_it_is_looked_at_is_one_line(
    error: OSError, script: type[Scripted], capsys: pytest.CaptureFixture[str]
) -> None:
    script.answers["stacks"] = [error]
    assert run(capsys, "stacks") == (1, "", f"penstock stacks: {error}\n")


@pytest.mark.parametrize("command", [*LOOKING, *ACTIONS])
def test_each_command_has_help_and_json(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main([command, "--help"])
    assert end.value.code == 0
    out = capsys.readouterr().out
    assert "--json" in out
    assert all(len(line) < 80 for line in out.splitlines())


# --- ps


def test_ps_shows_a_row_for_each_loop(script: type[Scripted], capsys: pytest.CaptureFixture[str]) -> None:
    answer = about(PID)
    answer["loops"].append({**LOOP, "name": "second", "blocked_s": 3.2, "findings": {}})
    script.answers["about"] = [answer]
    code, out, _ = run(capsys, "ps")
    assert code == 0
    assert out.splitlines() == [
        "PID   NAME           LOOP             STATE          UTIL  TASKS  UPTIME  FINDINGS",
        "4242  serve app:app  main penstock    running         42%  1,234    90 s  2 stall",
        "                     second penstock  blocked 3.2 s   42%  1,234          0",
    ]


def test_ps_puts_workers_below_their_supervisor(
    script: type[Scripted], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ps, "processes", lambda: [30, 31, 32, 99])
    monkeypatch.setattr(ps, "supervisors", lambda: [20])
    listed = [{"pid": 32, "number": 1}, {"pid": 31, "number": 2}]
    monkeypatch.setattr(ps, "ask_supervisor", lambda pid, command, within_s: {"ok": True, "workers": listed})
    script.answers["about"] = [about(0)]
    for pid, number in ((32, 1), (31, 2)):
        script.answers[f"about {pid}"] = [about(pid, worker={"supervisor": 20, "number": number})]
    script.answers["about 99"] = [ConnectionError("ended")]
    _, out, _ = run(capsys, "ps")
    lines = [line.split("  ")[0] + "|" + line.strip().split()[0] for line in out.splitlines()[1:]]
    assert lines == ["20|20", "|32", "|31", "30|30"]
    assert "serve app:app (supervisor)" in out
    assert "2 workers" in out
    assert "serve app:app [1]" in out


def test_ps_shows_what_a_partial_answer_has(script: type[Scripted], capsys: pytest.CaptureFixture[str]) -> None:
    script.answers["about"] = [PARTIAL]
    _, out, _ = run(capsys, "ps")
    assert out.splitlines() == [
        "PID   LOOP  STATE",
        "4242  main  blocked 3.2 s",
        "",
        "4242: partial answer: the GIL was not available for 0.062 s",
    ]


def test_ps_says_which_process_does_not_answer(script: type[Scripted], capsys: pytest.CaptureFixture[str]) -> None:
    script.answers["about"] = [TimeoutError("process 4242 did not answer in 2 s")]
    _, out, _ = run(capsys, "ps")
    assert out.splitlines()[1].split() == ["4242", "no", "answer"]
    assert out.endswith("4242: process 4242 did not answer in 2 s\n")


def test_ps_without_a_process_says_so(
    script: type[Scripted], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ps, "processes", list)
    assert run(capsys, "ps")[1].startswith("no penstock process of this user runs")
    assert json.loads(run(capsys, "ps", "--json")[1]) == {"processes": [], "supervisors": []}


# --- tasks and stacks


def test_tasks_are_a_table(script: type[Scripted], capsys: pytest.CaptureFixture[str]) -> None:
    script.answers["tasks"] = [{"tasks": [TASK], "total": 2345, "matched": 200}]
    _, out, _ = run(capsys, "tasks", "--filter", "work", "--sort", "steps", "--limit", "1", "--ascending")
    assert out.splitlines() == [
        "NUMBER  NAME    STATE     AGE  RUNNING  READY  WAITING  STEPS  SITE",
        "     7  worker  waiting  12 s   250 ms   2 ms     11 s  1,200  app.py:41 in handler",
        "",
        "1 of 2,345 tasks, 200 match",
    ]
    expected = {"filter": "work", "loop": None, "sort": "steps", "descending": False, "limit": 1}
    assert script.asked == [{"command": "tasks", "pid": PID, **expected}]


def test_the_loop_is_shown_where_there_are_several(script: type[Scripted], capsys: pytest.CaptureFixture[str]) -> None:
    script.answers["tasks"] = [{"tasks": [TASK, {**TASK, "loop": "second"}], "total": 2, "matched": 2}]
    assert run(capsys, "tasks")[1].splitlines()[0].endswith("LOOP")


def test_tasks_of_a_site_are_one_row(script: type[Scripted], capsys: pytest.CaptureFixture[str]) -> None:
    group = {"site": PLACE, "count": 7, "ready": 1, "running": 0, "waiting": 6, "oldest_s": 3.0, "running_s": 0.5}
    script.answers["tasks"] = [{"groups": [group] * 3}]
    _, out, _ = run(capsys, "tasks", "--group", "site", "--limit", "2")
    assert out.splitlines() == [
        "COUNT  READY  RUNNING  WAITING  OLDEST    TIME  SITE",
        *["    7      1        0        6   3.0 s  500 ms  app.py:41 in handler"] * 2,
        "",
        "2 of 3 sites are shown (--limit)",
    ]


def test_a_site_that_ran_at_level_trace_shows_its_steps(
    script: type[Scripted], capsys: pytest.CaptureFixture[str]
) -> None:
    group = {"site": PLACE, "count": 7, "ready": 1, "running": 0, "waiting": 6, "oldest_s": 3.0, "running_s": 0.5}
    traced = {**group, "step": {"count": 9, "p99_s": 0.012}, "schedule": {"count": 9, "p99_s": 0.25}}
    script.answers["tasks"] = [{"groups": [traced, group]}]
    _, out, _ = run(capsys, "tasks", "--group", "site")
    assert out.splitlines() == [
        "COUNT  READY  RUNNING  WAITING  OLDEST    TIME  P99 STEP  P99 READY  SITE",
        "    7      1        0        6   3.0 s  500 ms     12 ms     250 ms  app.py:41 in handler",
        "    7      1        0        6   3.0 s  500 ms         -          -  app.py:41 in handler",
    ]


def test_tasks_of_a_stack_are_one_group_and_cycles_come_first(
    script: type[Scripted], capsys: pytest.CaptureFixture[str]
) -> None:
    other = {**GROUP, "count": 1, "names": ["single"]}
    script.answers["tasks"] = [{"groups": [GROUP, other], "cycles": [["a", "b"]], "skipped": 3}]
    _, out, _ = run(capsys, "tasks", "--group", "stack")
    assert out.splitlines() == [
        "cycle: a -> b -> a",
        "20 tasks: a, b, ...",
        "  awaits lock (held)",
        "    app.py:41 in handler",
        "1 task: single",
        "  awaits lock (held)",
        "    app.py:41 in handler",
        "3 tasks were not read, for lack of time",
    ]
    assert "20 tasks" not in run(capsys, "tasks", "--group", "stack", "--filter", "SINGLE")[1]


def test_a_tree_has_the_awaited_tasks_below(script: type[Scripted], capsys: pytest.CaptureFixture[str]) -> None:
    leaf = {"name": "leaf", "number": 3, "site": PLACE, "awaits": "sleep", "children": []}
    inner = {"name": "inner", "number": 2, "site": PLACE, "awaits": "task leaf", "children": [leaf]}
    roots = [
        {"name": "other", "number": 9, "site": None, "awaits": "lock", "children": []},
        {"name": "root", "number": 1, "site": PLACE, "awaits": "gather", "children": [inner, leaf]},
    ]
    script.answers["tasks"] = [{"roots": roots, "cycles": [["x"]]}]
    _, out, _ = run(capsys, "tasks", "--tree")
    assert out.splitlines() == [
        "cycle: x -> x",
        "root (1) at app.py:41 in handler awaits gather",
        "├─ inner (2) at app.py:41 in handler awaits task leaf",
        "│  └─ leaf (3) at app.py:41 in handler awaits sleep",
        "└─ leaf (3) at app.py:41 in handler awaits sleep",
        "other (9) at - awaits lock",
    ]
    filtered = run(capsys, "tasks", "--tree", "--filter", "leaf")[1]
    assert "root" in filtered
    assert "other" not in filtered
    assert run(capsys, "tasks", "--tree", "--group", "site")[0] == 2


def test_stacks_show_threads_and_tasks(script: type[Scripted], capsys: pytest.CaptureFixture[str]) -> None:
    threads = [
        {"name": "MainThread", "native_id": 77, "loop": "main", "frames": [PLACE]},
        {"name": "idle", "native_id": 78, "loop": None, "frames": []},
        {"name": "penstock-attach", "native_id": 79, "loop": None, "frames": [PLACE]},
    ]
    script.answers["stacks"] = [{"threads": threads, "groups": [GROUP]}]
    _, out, _ = run(capsys, "stacks")
    assert out.splitlines()[:6] == [
        "thread MainThread (77), loop main",
        "    app.py:41 in handler",
        "thread idle (78)",
        "    no Python frame",
        "threads of penstock: penstock-attach (--all shows their stacks)",
        "",
    ]
    assert "thread penstock-attach (79)" in run(capsys, "stacks", "--all")[1]


@pytest.mark.parametrize("arguments", [["tasks"], ["tasks", "--tree"], ["tasks", "--group", "site"], ["findings"]])
def test_a_partial_answer_is_shown_as_such(
    arguments: list[str], script: type[Scripted], capsys: pytest.CaptureFixture[str]
) -> None:
    script.answers[arguments[0]] = [PARTIAL]
    code, out, _ = run(capsys, *arguments)
    assert code == 0
    assert out.splitlines() == [
        "partial answer: the GIL was not available for 0.062 s",
        "not read: tasks, gates",
        "",
        "loop main: blocked for 3.2 s by one callback, 12 turns, 500 ms of CPU time",
        "",
        "NATIVE ID  STATE      CPU  NAME",
        "       77  running  1.0 s  python",
    ]


def test_a_partial_answer_shows_the_loops_that_run(script: type[Scripted], capsys: pytest.CaptureFixture[str]) -> None:
    closed = {"name": "closed", "running": False, "turns": 0, "blocked": None}
    script.answers["tasks"] = script.answers["about"] = [{**PARTIAL, "loops": [closed, *PARTIAL["loops"]]}]  # type: ignore[misc]
    for command in ("ps", "tasks"):
        out = run(capsys, command)[1]
        assert "closed" not in out
        assert "main" in out
    script.answers["tasks"] = [{**PARTIAL, "loops": [closed]}]
    assert "loop closed: not running" in run(capsys, "tasks")[1]


def test_partial_stacks_are_those_that_could_be_read(
    script: type[Scripted], capsys: pytest.CaptureFixture[str]
) -> None:
    text = 'Current thread 0x1 (most recent call first):\n  File "app.py", line 41 in handler' + ESCAPE
    script.answers["stacks"] = [{**PARTIAL, "native_stacks": text}]
    assert run(capsys, "stacks")[1].endswith(f"\n\n{text.replace(ESCAPE, '?')}\n")
    script.answers["stacks"] = [{**PARTIAL, "native_stacks": None}]
    assert run(capsys, "stacks")[1].splitlines()[-1].startswith("stacks: not read")


# --- trace and findings


def test_a_trace_is_written(script: type[Scripted], capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    script.answers["trace"] = [{"trace": {"traceEvents": []}, "events": 1200}]
    file = tmp_path / "out.json"
    code, out, _ = run(capsys, "trace", str(PID), "--seconds", "2", "-o", str(file))
    assert (code, out) == (0, f"{file}: 1,200 events, 19 bytes\n")
    assert json.loads(file.read_text()) == {"traceEvents": []}
    assert script.asked[0]["seconds"] == 2
    assert json.loads(run(capsys, "trace", "-o", str(file), "--json")[1]) == {
        "file": str(file),
        "events": 1200,
        "bytes": 19,
    }
    assert json.loads(run(capsys, "trace", "-o", "-")[1]) == {"traceEvents": []}


def test_a_trace_that_cannot_be_made_is_an_error(
    script: type[Scripted], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    script.answers["trace"] = [PARTIAL]
    code, _, err = run(capsys, "trace", "-o", str(tmp_path / "out.json"))
    assert (code, err) == (
        1,
        "penstock trace: process 4242 was not traced: the GIL was not available for 0.062 s\n",
    )
    assert not (tmp_path / "out.json").exists()
    script.answers["trace"] = [{"trace": {}, "events": 0}]
    assert run(capsys, "trace", "-o", str(tmp_path / "no" / "out.json"))[0] == 1
    assert run(capsys, "trace", "--seconds", "x")[0] == 2


def test_findings_are_lines(script: type[Scripted], capsys: pytest.CaptureFixture[str]) -> None:
    script.answers["findings"] = [{"findings": [FINDING], "mark": 1}]
    _, out, _ = run(capsys, "findings")
    assert out.endswith("  stall  a callback lasted 0.3 s in app.py:41 (python, blocked in time.sleep)\n")
    script.answers["findings"] = [{"findings": [], "mark": 0}]
    assert run(capsys, "findings")[1] == "no findings\n"


def test_findings_are_followed_until_the_process_ends(
    script: type[Scripted], capsys: pytest.CaptureFixture[str]
) -> None:
    """A GIL that is held is told once; the mark stays."""
    ended = ConnectionError("process 4242 ended the connection")
    script.answers["findings"] = [
        {"findings": [FINDING], "mark": 1},
        PARTIAL,
        PARTIAL,
        {"findings": [{**FINDING, "kind": "hung"}], "mark": 5},
        ended,
    ]
    code, out, err = run(capsys, "findings", "--follow", "--json")
    assert code == 1
    assert [json.loads(line)["kind"] for line in out.splitlines()] == ["stall", "hung"]
    assert err.splitlines() == [
        "penstock findings: process 4242: no findings for now: the GIL was not available for 0.062 s",
        "penstock findings: process 4242 ended the connection",
    ]
    assert [asked.get("since") for asked in script.asked] == [None, 1, 1, 1, 5]


def test_ctrl_c_ends_following(script: type[Scripted], capsys: pytest.CaptureFixture[str]) -> None:
    script.answers["findings"] = [{"findings": [], "mark": 0}, KeyboardInterrupt()]
    assert run(capsys, "findings", "--follow") == (130, "", "")


def test_cancellations_are_lines_with_their_cancellers(
    script: type[Scripted], capsys: pytest.CaptureFixture[str]
) -> None:
    by_timeout = {**CANCELLATION, "by": None, "chain": []}
    script.answers["cancellations"] = [{"cancellations": [CANCELLATION, by_timeout], "mark": 2, "enabled": True}]
    code, out, err = run(capsys, "cancellations")
    assert (code, err) == (0, "")
    first, second = (line.partition("  ")[2] for line in out.splitlines())
    assert first == "fetch (made at app.py:41 in handler) by refresh, itself cancelled by watch  at app.py:52 in stop"
    assert second == "fetch (made at app.py:41 in handler) by no task, in thread MainThread  at app.py:52 in stop"


def test_a_process_that_records_no_cancellations_is_told(
    script: type[Scripted], capsys: pytest.CaptureFixture[str]
) -> None:
    script.answers["cancellations"] = [{"cancellations": [], "mark": 0, "enabled": False}]
    code, out, err = run(capsys, "cancellations")
    assert (code, out) == (0, "no cancellations\n")
    assert err == (
        "penstock cancellations: process 4242: cancellations are not recorded (tasks.name_cancellers is false)\n"
    )


def test_cancellations_are_followed_by_their_mark(script: type[Scripted], capsys: pytest.CaptureFixture[str]) -> None:
    script.answers["cancellations"] = [
        {"cancellations": [CANCELLATION], "mark": 1, "enabled": True},
        {"cancellations": [CANCELLATION], "mark": 4, "enabled": True},
        KeyboardInterrupt(),
    ]
    code, out, err = run(capsys, "cancellations", "--follow", "--json")
    assert (code, err) == (130, "")
    assert [json.loads(line) for line in out.splitlines()] == [CANCELLATION, CANCELLATION]
    assert [asked.get("since") for asked in script.asked] == [None, 1, 4]


# --- changes


@pytest.mark.parametrize(
    ("words", "asked"),
    [
        (["level", "trace"], {"command": "level", "level": "trace"}),
        (["level", "9", "off"], {"command": "level", "level": "off", "pid": 9}),
        (["cancel", "7"], {"command": "cancel", "number": 7}),
        (["cancel", "9", "7"], {"command": "cancel", "number": 7, "pid": 9}),
        (["gc"], {"command": "gc"}),
        (["set-limit", "api", "20"], {"command": "set-limit", "gate": "api", "limit": 20}),
        (["set-limit", "9", "api", "20"], {"command": "set-limit", "gate": "api", "limit": 20, "pid": 9}),
    ],
)
def test_a_change_is_asked_for_and_confirmed(
    words: list[str], asked: dict[str, Any], script: type[Scripted], capsys: pytest.CaptureFixture[str]
) -> None:
    answer = {"level": asked["level"]} if "level" in asked else {"done": "all is done"}
    script.answers[words[0]] = [answer]
    pid = asked.get("pid", PID)
    done = f"level {asked['level']}" if "level" in asked else "all is done"
    assert run(capsys, *words) == (0, f"process {pid}: {done}\n", "")
    assert script.asked == [{"pid": PID, **asked}]
    assert json.loads(run(capsys, *words, "--json")[1]) == {**FACTS, **answer}


@pytest.mark.parametrize("words", [["level", "trace"], ["cancel", "7"], ["gc"], ["set-limit", "api", "20"]])
def test_a_change_without_the_gil_is_not_confirmed(
    words: list[str], script: type[Scripted], capsys: pytest.CaptureFixture[str]
) -> None:
    script.answers[words[0]] = [PARTIAL]
    code, out, err = run(capsys, *words)
    assert (code, out) == (1, "")
    assert "has not confirmed it" in err


@pytest.mark.parametrize("words", [["level", "loud"], ["cancel", "0"], ["cancel", "x"], ["set-limit", "api", "-1"]])
def test_a_change_that_cannot_be_is_a_usage_error(
    words: list[str], script: type[Scripted], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(capsys, *words)[0] == 2
    assert script.asked == []
