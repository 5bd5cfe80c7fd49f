"""`penstock scale`, `reload`, `workers` and `stop`, to a control socket with scripted answers."""

import json
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path

import pytest

from penstock.cli.entry import main
from penstock.runtime.supervisor.control import ControlServer, PendingAnswer, listen_control

PID = 424242
WORKERS = [
    {
        "number": 1,
        "pid": 11,
        "generation": 3,
        "state": "turning",
        "age_s": 61.2,
        "requests": 2,
        "served": 1000,
        "connections": 7,
        "rss_bytes": 40 * 1024 * 1024,
    },
    {"number": 2, "pid": 12, "generation": 3, "state": "stalled for\n2 s", "age_s": 90000},
]


class Script:
    """The answers of a supervisor, and what it was asked."""

    def __init__(self) -> None:
        self.asked: list[Mapping[str, object]] = []
        self.answers: dict[str, Mapping[str, object] | PendingAnswer] = {
            "scale": {"ok": True},
            "stop": {"ok": True},
            "reload": {"ok": True, "generation": 4},
            "workers": {"ok": True, "pid": PID, "generation": 3, "workers": WORKERS},
        }

    def __call__(self, message: Mapping[str, object]) -> Mapping[str, object] | PendingAnswer:
        self.asked.append(message)
        return self.answers[str(message["command"])]


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Script]:
    monkeypatch.setenv("PENSTOCK_RUNTIME_DIR", str(tmp_path / "run"))
    made = Script()
    with closing(ControlServer(made, listen_control(PID))):
        yield made


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = main(arguments)
    told = capsys.readouterr()
    return code, told.out, told.err


@pytest.mark.parametrize("pid", [(), (str(PID),)])
def test_each_command_reaches_the_supervisor(
    script: Script, capsys: pytest.CaptureFixture[str], pid: tuple[str, ...]
) -> None:
    assert run(capsys, "scale", "4", *pid) == (0, f"supervisor {PID}: 4 workers\n", "")
    assert run(capsys, "reload", *pid) == (0, f"supervisor {PID}: generation 4 serves\n", "")
    assert run(capsys, "stop", *pid) == (0, f"supervisor {PID}: stops\n", "")
    assert [message["command"] for message in script.asked] == ["scale", "reload", "stop"]
    assert script.asked[0] == {"version": 1, "command": "scale", "count": 4}


def test_workers_are_a_table(script: Script, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "workers")
    head, names, first, second = out.splitlines()
    assert (code, head) == (0, f"supervisor {PID}, generation 3")
    assert names.split() == [
        "number",
        "pid",
        "generation",
        "state",
        "age",
        "in",
        "flight",
        "served",
        "connections",
        "RSS",
    ]
    assert first.split() == ["1", "11", "3", "turning", "61", "s", "2", "1000", "7", "40.0", "MiB"]
    assert second.split() == ["2", "12", "3", "stalled", "for", "2", "s", "25", "h", "-", "-", "-", "-"]


def test_workers_are_json(script: Script, capsys: pytest.CaptureFixture[str]) -> None:
    assert json.loads(run(capsys, "workers", "--json")[1])["workers"] == WORKERS


@pytest.mark.parametrize("workers", [None, 3, [4, None], [{}]])
def test_an_odd_answer_is_a_table_too(script: Script, capsys: pytest.CaptureFixture[str], workers: object) -> None:
    script.answers["workers"] = {"ok": True, "workers": workers}
    assert run(capsys, "workers")[0] == 0


def test_a_failed_reload_is_one_line_and_1(script: Script, capsys: pytest.CaptureFixture[str]) -> None:
    script.answers["reload"] = {"ok": False, "error": "rolled back: worker 1 raised\nKeyError"}
    code, out, err = run(capsys, "reload")
    assert (code, out) == (1, "")
    assert err == f"penstock reload: supervisor {PID}: rolled back: worker 1 raised KeyError\n"


def test_a_reload_that_takes_longer_is_one_line_and_1(script: Script, capsys: pytest.CaptureFixture[str]) -> None:
    script.answers["reload"] = PendingAnswer()
    code, _, err = run(capsys, "reload", "--timeout", "0.05")
    assert (code, err) == (1, f"penstock reload: the supervisor {PID} did not answer in 0.05 s\n")


def test_without_a_pid_there_must_be_one_supervisor(script: Script, capsys: pytest.CaptureFixture[str]) -> None:
    with closing(ControlServer(script, listen_control(PID + 1))):
        code, _, err = run(capsys, "stop")
    assert (code, err) == (2, f"penstock stop: several supervisors run, choose one by PID: {PID}, {PID + 1}\n")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("scale",), "required: N"),
        (("scale", "0"), "'0' is not a number of 1 or more"),
        (("scale", "x"), "'x' is not a number"),
        (("scale", "9" * 5000), "is not a number"),
        (("scale", "4", "x"), "'x' is not a number"),
        (("scale", "4", "7"), "process 7 is no supervisor of this user"),
        (("reload", "--timeout", "0"), "'0' is not a time"),
        (("reload", "--timeout", "nan"), "'nan' is not a time"),
        (("workers", "--yaml"), "unrecognized arguments: --yaml"),
        (("stop", "1", "2"), "unrecognized arguments: 2"),
    ],
    ids=str,
)
def test_a_mistake_is_one_line_and_2(
    script: Script, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], says: str
) -> None:
    code, out, err = run(capsys, *arguments)
    assert (code, out) == (2, "") and says in err and err.count("\n") == 1, err
    assert script.asked == []


def test_no_supervisor_is_one_line_and_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PENSTOCK_RUNTIME_DIR", str(tmp_path / "run"))
    code, _, err = run(capsys, "workers")
    assert code == 2 and "no supervisor of this user runs" in err
