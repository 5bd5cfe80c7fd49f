"""Findings as log records: a logger for each subject, one line, and a flat dict of plain JSON."""

import json
import logging
import re
import subprocess
import sys
from contextlib import contextmanager

import pytest

from penstock.tasks import finding_fields as logs
from penstock.tasks.finding import Finding
from penstock.tasks.finding_fields import LOGGERS, REPORTED_ELSEWHERE, log_finding
from penstock.tasks.place import Place

PROGRAM = """
import asyncio
import time
import penstock
from penstock.tasks import findings

async def fail():
    raise ValueError

async def main():
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)
    task = asyncio.create_task(fail())
    await asyncio.sleep(0)
    del task
    while len({each.kind for each in findings()}) < 2:
        time.sleep(0.01)
    print(*sorted({each.kind for each in findings()}))

penstock.run(main(), config=penstock.Config(tasks=penstock.TasksConfig(stall_s=0.02)))
"""


def logged(caplog, kind="stall", message="held up", **fields):
    with caplog.at_level(logging.DEBUG, logger="penstock.tasks"):
        log_finding(Finding(kind, message, **fields))
    return caplog.records[-1]


@pytest.mark.parametrize("kind", LOGGERS)
def test_each_kind_has_a_logger_and_a_level_of_its_subject(caplog, kind):
    record = logged(caplog, kind)
    assert (record.name, record.levelno) == LOGGERS[kind]
    assert record.penstock["kind"] == kind


def level_of_stall(caplog, lasted_s, **evidence):
    return logged(
        caplog, "stall", evidence={"lasted_s": lasted_s, "repeated": False, "ended": True, **evidence}
    ).levelname


def test_a_stall_of_half_a_second_warns_and_a_stuck_task_is_an_error(caplog):
    assert level_of_stall(caplog, 0.5) == "WARNING"
    assert level_of_stall(caplog, 0.1) == "INFO"
    assert level_of_stall(caplog, 0.1, repeated=True) == "WARNING"
    assert logged(caplog, "stuck").levelname == "ERROR"


def test_a_short_stall_is_logged_at_its_end_and_a_lasting_one_while_it_lasts(caplog):
    assert level_of_stall(caplog, 0.1, ended=False) == "DEBUG"
    assert level_of_stall(caplog, 1.0, ended=False, repeated=True) == "WARNING"


def test_a_stall_by_a_busy_machine_is_for_debug(caplog):
    assert logged(caplog, "stall", evidence={"cause": "descheduled", "repeated": True}).levelname == "DEBUG"


@pytest.mark.parametrize("kind", sorted(REPORTED_ELSEWHERE))
def test_findings_that_asyncio_reports_itself_are_no_records(caplog, kind):
    with caplog.at_level(logging.DEBUG, logger="penstock.tasks"):
        log_finding(Finding(kind, "reported elsewhere"))
    assert not caplog.records


def test_a_failed_task_is_a_record_for_debug_alone(caplog):
    # its exception is raised in the code that awaits the task, or logged by asyncio as an error
    record = logged(caplog, "failed", evidence={"exception": "LookupError: as asked"})
    assert (record.name, record.levelname) == ("penstock.tasks.failed", "DEBUG")
    assert record.penstock["exception"] == "LookupError: as asked"


def test_a_kind_that_is_new_has_a_logger_of_its_own(caplog):
    assert logged(caplog, "novel").name == "penstock.tasks.novel"


def test_the_line_is_one_line_without_the_stacks(caplog):
    record = logged(caplog, message="held up\n  for 1 s, 100 %", evidence={"stack": ["a.py:1", "b.py:2\n"]})
    assert record.getMessage() == "held up for 1 s, 100 %"
    assert record.penstock["stack"] == "a.py:1\nb.py:2"


def test_the_record_is_flat_and_plain_json(caplog):
    evidence = {
        "cause": "gil",
        "chain": {"first": 1, "second": {"deep": object}},
        "task": "a name that clashes",
        "age_s": float("inf"),
        "counts": [1, 2, object()],
        "both": (Place("x.py", 1, "f"),),
        "nothing": None,
    }
    record = logged(caplog, site=Place("app.py", 7, "work"), task="t", loop="main", since_s=1.5, evidence=evidence)
    found = json.loads(json.dumps(record.penstock, allow_nan=False))
    assert found == record.penstock
    assert not [value for value in found.values() if isinstance(value, dict | list)]
    assert found["site"] == "app.py:7 in work"
    assert (found["site_file"], found["site_line"], found["site_function"]) == ("app.py", 7, "work")
    assert (found["task"], found["evidence_task"], found["loop"]) == ("t", "a name that clashes", "main")
    assert (found["cause"], found["chain.first"], found["age_s"], found["since_s"]) == ("gil", 1, "inf", 1.5)


def test_a_finding_without_a_site_says_so(caplog):
    assert logged(caplog).penstock["site"] is None


def test_nothing_is_made_for_a_logger_that_is_silent(caplog):
    class Watched(dict):
        def items(self):
            raise AssertionError("the evidence was read")

    with caplog.at_level(logging.CRITICAL, logger="penstock.tasks.stall"):
        log_finding(Finding("stall", "held up", evidence=Watched(a=1)))
    assert not caplog.records


def output_of(program):
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    return done.stdout, done.stderr


def test_without_logging_set_up_a_finding_is_silent():
    assert output_of(PROGRAM) == ("exception_unretrieved stall\n", "")


def test_a_loop_that_goes_with_the_interpreter_is_silent():
    # the policy keeps it, so it goes when the modules' names are gone
    program = """
import asyncio, penstock, warnings
warnings.simplefilter("ignore")
penstock.install()
loop = asyncio.new_event_loop()
asyncio.set_event_loop(loop)
loop.run_until_complete(asyncio.sleep(0))
loop.close()
"""
    assert output_of(program) == ("", "")


def test_with_logging_set_up_a_stall_is_a_record_and_a_failed_task_is_none():
    # a busy machine's stall is one for DEBUG
    _, stderr = output_of("import logging; logging.basicConfig(level=logging.DEBUG)" + PROGRAM)
    names = {line.partition(":")[2].partition(":")[0] for line in stderr.splitlines()}
    assert names - {"asyncio"} == {"penstock.tasks.stall"}


@contextmanager
def shown(monkeypatch):
    """penstock's records as under its own commands, and the root logger as in a program that has set up no logging."""
    with monkeypatch.context() as patch:
        patch.setattr(logging.getLogger(), "handlers", [])
        patch.setattr(logging.getLogger("penstock"), "handlers", [])
        patch.setattr(logs, "_shown", None)
        logs.show_records()
        yield


def test_our_own_commands_show_records_with_time_level_and_logger(monkeypatch, capsys):
    with shown(monkeypatch):
        logs.show_records()
        log_finding(Finding("stall", "held up"))
        log_finding(Finding("hung", "old"))
    first, second = capsys.readouterr().err.splitlines()
    assert re.fullmatch(r"\d{4}-\d\d-\d\d [\d:,]{12} INFO penstock.tasks.stall: held up", first)
    assert second.endswith("WARNING penstock.tasks.hung: old")


def test_a_program_that_sets_up_logging_has_the_records_at_its_own_level_alone(monkeypatch, capsys, caplog):
    with shown(monkeypatch):
        logging.getLogger().addHandler(caplog.handler)
        log_finding(Finding("stall", "below"))
        log_finding(Finding("hung", "above"))
        with caplog.at_level(logging.INFO, "penstock.tasks.stall"):
            log_finding(Finding("stall", "asked for"))
    assert [record.getMessage() for record in caplog.records] == ["above", "asked for"]
    assert capsys.readouterr().err == ""


def test_a_program_that_silences_a_logger_sees_none_of_its_records(monkeypatch, capsys):
    with shown(monkeypatch), monkeypatch.context() as patch:
        patch.setattr(logging.getLogger("penstock"), "level", logging.ERROR)
        log_finding(Finding("stall", "held up"))
        patch.setattr(logging.getLogger("penstock"), "level", logging.NOTSET)
        patch.setattr(logging.getLogger("penstock.tasks.stall"), "disabled", True)
        log_finding(Finding("stall", "held up"))
    assert capsys.readouterr().err == ""
