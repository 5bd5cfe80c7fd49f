"""Stacks that stand in a debugger; real debuggers are in tests/e2e/test_debuggers.py."""

import bdb
import code
import pdb  # noqa: T100
import sys

import pytest

from penstock.tasks.detectors.stall_report import BDB_TOOL, is_stepped, stands_in_debugger
from penstock.tasks.place import Place


def place(file):
    return Place(file, 1, "<module>")


@pytest.mark.parametrize(
    "file",
    [
        *(module.__file__ for module in (bdb, pdb, code)),
        "/venv/lib/python3.13/site-packages/debugpy/_vendored/pydevd/_pydevd_bundle/pydevd_frame.py",
        "/venv/lib/python3.13/site-packages/IPython/core/debugger.py",
        "/venv/lib/python3.13/site-packages/IPython/terminal/embed.py",
    ],
)
def test_a_stack_with_a_debuggers_frame_stands_in_it(file):
    assert stands_in_debugger([place("/app/shop.py"), place(file), place("/app/main.py")])


@pytest.mark.parametrize(
    "file",
    [
        "/app/pdb.py",
        "/app/code.py",
        "/venv/lib/python3.13/site-packages/IPython/core/interactiveshell.py",
        "/venv/lib/python3.13/codecs.py",
    ],
)
def test_a_programs_own_code_and_a_notebooks_cells_do_not(file):
    assert not stands_in_debugger([place(file)])


@pytest.mark.skipif(sys.version_info < (3, 12), reason="sys.monitoring is new in Python 3.12")
def test_pdb_as_a_monitoring_tool_steps_and_another_tool_does_not():
    tool = sys.monitoring.DEBUGGER_ID
    for name, steps in ((BDB_TOOL, True), ("another", False)):
        sys.monitoring.use_tool_id(tool, name)
        try:
            assert is_stepped(None) == steps
        finally:
            sys.monitoring.free_tool_id(tool)


def test_a_tracer_that_is_no_debugger_does_not_step():
    frame = sys._getframe()
    frame.f_trace = lambda *_: None
    try:
        assert not is_stepped(frame)
    finally:
        del frame.f_trace
