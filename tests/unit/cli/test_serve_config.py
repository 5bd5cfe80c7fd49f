"""The config under `penstock serve`: its defaults apply to keys that no source sets; none is a value."""

import argparse
import gc
import sys

import pytest

pytest.importorskip("uvicorn")

from penstock.cli import serve
from penstock.config.groups import SERVICE_DRAIN_S
from penstock.config.pressure import SERVICE_LAG_HIGH_S
from penstock.integrations.uvicorn import supervised

BY_OPTION = "--set"
BY_VARIABLE = "variable"
BY_FILE = "file"


@pytest.fixture
def served(monkeypatch, tmp_path):
    """`served(*arguments, **none_by)`: the config that the server would get."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "shop.py").write_text("async def app(scope, receive, send): ...\n")
    got = []
    monkeypatch.setattr(serve, "_serve", lambda app, options, config: got.append(config) or 0)

    def config(*arguments, none=None, by=None):
        group, _, key = (none or "").partition(".")
        if by == BY_OPTION:
            arguments = [*arguments, "--set", f"{none}=none"]
        elif by == BY_VARIABLE:
            monkeypatch.setenv(f"PENSTOCK_{group}_{key}".upper(), "none")
        elif by == BY_FILE:
            (tmp_path / "penstock.toml").write_text(f'[{group}]\n{key} = "none"\n')
        assert serve.main([*arguments, "shop:app"]) == 0
        return got.pop()

    return config


@pytest.mark.parametrize("by", [BY_OPTION, BY_VARIABLE, BY_FILE])
def test_the_loops_own_gate_is_off_when_any_source_says_none(served, by):
    config = served("--limit", "auto", none="pressure.lag_high_s", by=by)
    assert (config.pressure.limit, config.pressure.lag_high_s) == ("auto", None)


@pytest.mark.parametrize("by", [BY_OPTION, BY_VARIABLE, BY_FILE])
def test_a_drain_of_none_is_no_drain_of_10_s(served, by):
    assert served(none="signals.drain_s", by=by).signals.drain_s is None


def test_where_nobody_says_anything_requests_that_are_limited_turn_the_loops_gate_on(served):
    assert served("--limit", "auto").pressure.lag_high_s == SERVICE_LAG_HIGH_S
    assert served().pressure.lag_high_s is None
    assert served().signals.drain_s == SERVICE_DRAIN_S
    assert served("--drain", "3", none="signals.drain_s", by=BY_OPTION).signals.drain_s == 3


def test_a_reload_leaves_no_parser_in_the_parent(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(serve, "check_apart", bool)
    (tmp_path / "shop.py").write_text("async def app(scope, receive, send): ...\n")
    left = []

    def run(service, bindings):
        for _ in range(3):
            service._orders()
        service._hub.close()
        left.append(_actions())
        return 0

    monkeypatch.setattr(supervised.WorkerService, "run", run)
    gc.collect()
    before = _actions()
    gc.disable()
    try:
        assert serve.main(["shop:app", "--workers", "1"]) == 0
    finally:
        gc.enable()
    assert left == [before]


def _actions():
    """Return how many options of parsers there are, in the parsers of other programs too."""
    return sum(isinstance(each, argparse.Action) for each in gc.get_objects())


@pytest.mark.parametrize(
    ("arguments", "hang_s"),
    [
        (["--workers", "2"], 60.0),
        (["--reload"], None),
        (["--reload", "--hang-timeout", "5"], 5.0),
        (["--reload", "--set", "workers.hang_s=7"], 7.0),
        (["--workers", "2", "--hang-timeout", "none"], None),
    ],
)
def test_a_worker_that_a_debugger_may_stop_is_not_taken_for_hung(arguments, hang_s):
    options = serve._options([*arguments, "shop:app"])
    assert serve._config(options).workers.hang_s == hang_s
