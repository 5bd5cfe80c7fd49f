"""Findings as log records: a logger a subject, one line, the rest flat and plain JSON beside it."""

import json
import logging

import pytest

from penstock.tasks.finding import Finding, Site
from penstock.tasks.logs import LOGGERS, log_finding

KINDS = (
    "stall",
    "destroyed_pending",
    "exception_unretrieved",
    "never_awaited",
    "stuck",
    "await_cycle",
    "hung",
    "growing",
    "loop_closed",
)


def logged(caplog, kind="stall", message="held up", **fields):
    with caplog.at_level(logging.DEBUG, logger="penstock.tasks"):
        log_finding(Finding(kind, message, **fields))
    return caplog.records[-1]


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_has_a_logger_and_a_level_of_its_subject(caplog, kind):
    record = logged(caplog, kind)
    assert (record.name, record.levelno) == LOGGERS[kind]
    assert record.penstock["kind"] == kind


def test_a_loop_that_was_held_up_warns_and_a_lost_task_is_an_error(caplog):
    assert logged(caplog, "stall").levelname == "INFO"
    assert logged(caplog, "stall", evidence={"again": True}).levelname == "WARNING"
    assert logged(caplog, "destroyed_pending").levelname == "ERROR"
    assert logged(caplog, "destroyed_pending").name == "penstock.tasks.abandoned"


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
        "both": (Site("x.py", 1, "f"),),
        "nothing": None,
    }
    record = logged(caplog, site=Site("app.py", 7, "work"), task="t", loop="main", since_s=1.5, evidence=evidence)
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
