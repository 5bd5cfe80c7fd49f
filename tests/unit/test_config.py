"""The config: defaults, checks, and each of its sources."""

import asyncio
import concurrent.futures
import pickle
import sys
import typing
from dataclasses import FrozenInstanceError, fields, replace

import pytest

from penstock import Config, ExecutorsConfig, LaneConfig, LoopConfig, PressureConfig, SignalsConfig, TasksConfig
from penstock.cli.doctor import deviations
from penstock.config.sources import GROUPS
from penstock.errors import ConfigError, PenstockError


def load(path=None, *, env=None, overrides=None):
    return Config.load(path, env=env or {}, overrides=overrides or {})


def test_a_config_of_nothing_is_all_defaults():
    assert load() == Config()
    assert (Config().loop.poller, Config().loop.poll_every_turns, Config().loop.spin_us) == ("auto", 64, 0)
    assert (Config().executors.dns.workers, Config().pressure.backlog, Config().signals.drain_s) == (None, 2048, None)


def test_a_config_is_frozen_and_hashable_and_pickles():
    with pytest.raises(FrozenInstanceError):
        Config().loop.spin_us = 5
    assert hash(Config()) == hash(Config())
    config = Config(signals=SignalsConfig(handlers={"SIGHUP": "app:reload"}))
    assert pickle.loads(pickle.dumps(config)) == config


def test_replace_checks_the_new_value():
    assert replace(LoopConfig(), spin_us=7).spin_us == 7
    with pytest.raises(ConfigError, match=r"loop\.spin_us"):
        replace(LoopConfig(), spin_us=-7)


def test_type_hints_of_a_config_can_be_read():
    assert typing.get_type_hints(LoopConfig)["spin_us"] is int
    assert "factory" in typing.get_type_hints(TasksConfig)


@pytest.mark.parametrize(
    ("make", "key"),
    [
        (lambda: LoopConfig(spin_us=-1), "loop.spin_us"),
        (lambda: LoopConfig(spin_us=True), "loop.spin_us"),
        (lambda: LoopConfig(spin_us="5"), "loop.spin_us"),
        (lambda: LoopConfig(poller="kqueue"), "loop.poller"),
        (lambda: LoopConfig(poll_every_turns=0), "loop.poll_every_turns"),
        (lambda: LoopConfig(debug="yes"), "loop.debug"),
        (lambda: LoopConfig(slow_callback_s=float("nan")), "loop.slow_callback_s"),
        (lambda: ExecutorsConfig(default=object()), "executors.default"),
        (lambda: ExecutorsConfig(default="fibers"), "executors.default"),
        (lambda: TasksConfig(factory="no colon"), "tasks.factory"),
        (lambda: TasksConfig(factory=5), "tasks.factory"),
        (lambda: PressureConfig(backlog=70000), "pressure.backlog"),
        (lambda: SignalsConfig(drain_s=-0.5), "signals.drain_s"),
        (lambda: SignalsConfig(dump="perhaps"), "signals.dump"),
        (lambda: SignalsConfig(handlers={"SIGNOPE": "app:f"}), "signals.handlers"),
        (lambda: SignalsConfig(handlers={"SIGKILL": "app:f"}), "signals.handlers"),
        (lambda: SignalsConfig(handlers={"SIGHUP": 5}), "signals.handlers"),
        (lambda: Config(loop=5), "loop"),
    ],
)
def test_a_bad_value_from_python_names_key_value_and_what_is_allowed(make, key):
    with pytest.raises(ConfigError) as caught:
        make()
    assert caught.value.key == key
    assert key in str(caught.value)
    assert "allowed is" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value, (PenstockError, ValueError))


def test_a_whole_number_is_good_enough_for_seconds():
    assert SignalsConfig(drain_s=3).drain_s == 3.0
    assert isinstance(SignalsConfig(drain_s=3).drain_s, float)


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="3.12 has eager tasks")
def test_eager_tasks_are_refused_where_asyncio_has_none():
    with pytest.raises(ConfigError, match=r"tasks\.eager = True .* needs Python 3\.12"):
        TasksConfig(eager=True)


@pytest.mark.parametrize(("text", "value"), [("1", True), ("Yes", True), ("on", True), ("0", False), ("off", False)])
def test_variables_read_truth_in_the_usual_words(text, value):
    assert load(env={"PENSTOCK_SIGNALS_DUMP": text}).signals.dump is value


def test_variables_set_every_kind_of_value():
    config = load(
        env={
            "PENSTOCK_LOOP_POLLER": "selector",
            "PENSTOCK_LOOP_SPIN_US": " 50 ",
            "PENSTOCK_LOOP_DEBUG": "true",
            "PENSTOCK_EXECUTORS_IO": "threads workers=none",
            "PENSTOCK_EXECUTORS_DNS_WORKERS": "2",
            "PENSTOCK_TASKS_FACTORY": "app.tasks:make",
            "PENSTOCK_SIGNALS_DRAIN_S": "2.5",
            "PENSTOCK_SIGNALS_HANDLERS": "SIGHUP=app:reload, SIGUSR2=app:rotate",
        }
    )
    assert (config.loop.poller, config.loop.spin_us, config.loop.debug) == ("selector", 50, True)
    assert (config.executors.io.workers, config.executors.dns.workers) == (None, 2)
    assert (config.tasks.factory, config.signals.drain_s) == ("app.tasks:make", 2.5)
    assert config.signals.handlers == {"SIGHUP": "app:reload", "SIGUSR2": "app:rotate"}


def test_variables_that_are_no_keys_are_left_alone():
    env = {"PENSTOCK_PURE": "1", "PENSTOCK_CPUS": "2", "PENSTOCK_LOOP_SPIN_US": "", "PENSTOCKLOOP": "x", "LOOP_X": "y"}
    assert load(env=env) == Config()


@pytest.mark.parametrize("group", ["TASKS", "LOOP", "PRESSURE"])
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SERVICE_HOST", "10.0.0.7"),
        ("SERVICE_PORT", "8000"),
        ("SERVICE_PORT_HTTP", "8000"),
        ("PORT", "tcp://10.0.0.7:8000"),
        ("PORT_8000_TCP", "tcp://10.0.0.7:8000"),
        ("PORT_8000_TCP_ADDR", "10.0.0.7"),
        ("PORT_53_UDP_PROTO", "udp"),
    ],
)
def test_variables_that_kubernetes_gives_for_a_service_named_as_a_group_are_left_alone(group, name, value):
    assert load(env={f"PENSTOCK_{group}_{name}": value}) == Config()


@pytest.mark.parametrize("name", ["SERVICE_HOSTS", "PORTS", "PORT_TCP", "PORT_8000_TCP_ADDRESS", "SPIN_US_PORT"])
def test_a_variable_that_only_resembles_a_services_is_an_error(name):
    with pytest.raises(ConfigError, match=f"unknown variable PENSTOCK_LOOP_{name}"):
        load(env={f"PENSTOCK_LOOP_{name}": "1"})


def test_an_unknown_variable_of_a_known_group_gets_a_suggestion():
    with pytest.raises(ConfigError, match="PENSTOCK_LOOP_SPINUS = '5'; did you mean 'PENSTOCK_LOOP_SPIN_US'"):
        load(env={"PENSTOCK_LOOP_SPINUS": "5"})


def test_a_bad_variable_names_itself_and_what_is_allowed():
    with pytest.raises(ConfigError) as caught:
        load(env={"PENSTOCK_LOOP_SPIN_US": "fast"})
    assert str(caught.value) == (
        "loop.spin_us = 'fast' (variable PENSTOCK_LOOP_SPIN_US): "
        "allowed is a whole number of microseconds from 0 to 1000000"
    )
    assert caught.value.source == "variable PENSTOCK_LOOP_SPIN_US"


def test_a_file_of_our_own_uses_its_top_level(tmp_path):
    path = tmp_path / "penstock.toml"
    path.write_text('[loop]\nspin_us = 9\n[signals]\ndrain_s = 3\n[signals.handlers]\nSIGHUP = "app:reload"\n')
    config = load(path)
    assert (config.loop.spin_us, config.signals.drain_s) == (9, 3.0)
    assert config.signals.handlers == {"SIGHUP": "app:reload"}


def test_a_pyproject_uses_its_own_table_only(tmp_path):
    path = tmp_path / "pyproject.toml"
    path.write_text("[loop]\nnonsense = 1\n[tool.penstock.loop]\nspin_us = 4\n")
    assert load(path).loop.spin_us == 4
    path.write_text("[project]\nname = 'x'\n")
    assert load(path) == Config()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[loop]\nspin_uss = 1\n", r"unknown key loop.spin_uss = 1 \(file .*\); did you mean 'loop.spin_us'"),
        ("[lop]\nspin_us = 1\n", r"unknown key lop = .*; did you mean 'loop'"),
        ("[zzzzz]\nqqq = 1\n", r"unknown key zzzzz = .*: allowed is a key in the groups loop, executors"),
        ("zzzzz = 1\n", r"unknown key zzzzz = 1 .*: allowed is a key in the groups loop, executors"),
        ("loop = 1\n", r"loop = 1 \(file .*\): allowed is a table"),
        ("[loop]\nspin_us = 1.5\n", r"loop.spin_us = 1.5 \(file .*\): allowed is a whole number"),
        ("[loop\n", r"is not TOML"),
    ],
)
def test_a_bad_file_gets_one_clear_line(tmp_path, text, message):
    path = tmp_path / "penstock.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message) as caught:
        load(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named_with_the_variable_that_asked_for_it(tmp_path):
    with pytest.raises(ConfigError, match=r"absent\.toml, named by PENSTOCK_CONFIG: No such file"):
        load(env={"PENSTOCK_CONFIG": str(tmp_path / "absent.toml")})


def test_options_go_before_variables_before_the_file(tmp_path):
    path = tmp_path / "penstock.toml"
    path.write_text("[loop]\nspin_us = 1\naccept_batch = 1\npoll_every_us = 1\n")
    env = {"PENSTOCK_CONFIG": str(path), "PENSTOCK_LOOP_SPIN_US": "2", "PENSTOCK_LOOP_ACCEPT_BATCH": "2"}
    loop = load(env=env, overrides={"loop.spin_us": "3"}).loop
    assert (loop.spin_us, loop.accept_batch, loop.poll_every_us) == (3, 2, 1)


def test_options_may_be_objects_and_bad_ones_are_named():
    assert load(overrides={"loop.debug": True}).loop.debug is True
    with pytest.raises(ConfigError, match=r"loop\.debug = 'maybe' \(option loop\.debug\)"):
        load(overrides={"loop.debug": "maybe"})
    with pytest.raises(ConfigError, match=r"did you mean 'signals\.drain_s'"):
        load(overrides={"signal.drain_s": "1"})


@pytest.mark.parametrize(
    "given",
    [{"overrides": {"signals.drain": "1"}}, {"env": {"PENSTOCK_SIGNALS_DRAIN": "0"}}],
)
def test_a_key_of_a_former_version_is_refused_with_the_new_one(given):
    with pytest.raises(
        ConfigError, match=r"signals\.drain = '.' \(.*\): this key was removed or renamed: set signals\.drain_s"
    ):
        load(**given)


@pytest.mark.parametrize(("old", "new"), [("hold_s", "defer_s"), ("drop_left", "close_abandoned")])
def test_a_renamed_key_is_an_error_that_names_the_new_one(old, new):
    with pytest.raises(ConfigError, match=rf"pressure\.{old} .*set pressure\.{new}, its new name"):
        load(overrides={f"pressure.{old}": "1"})


def test_find_takes_the_nearest_file_upwards(tmp_path):
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    (tmp_path / "pyproject.toml").write_text("[tool.penstock]\n")
    (tmp_path / "a" / "pyproject.toml").write_text("[project]\n")
    assert Config.find(inner) == tmp_path / "pyproject.toml"
    (tmp_path / "a" / "penstock.toml").write_text("")
    assert Config.find(inner) == tmp_path / "a" / "penstock.toml"


def test_find_passes_a_broken_pyproject_unless_it_speaks_of_us(tmp_path):
    (tmp_path / "penstock.toml").write_text("")
    inner = tmp_path / "a"
    inner.mkdir()
    (inner / "pyproject.toml").write_text("[broken")
    assert Config.find(inner) == tmp_path / "penstock.toml"
    (inner / "pyproject.toml").write_text("[tool.penstock.loop]\n[broken")
    assert Config.find(inner) == inner / "pyproject.toml"


def test_to_env_says_only_what_differs_and_reads_back_the_same():
    assert Config().to_env() == {}
    config = Config(
        loop=LoopConfig(poller="selector", debug=False, slow_callback_s=0.25),
        executors=ExecutorsConfig(io=LaneConfig(workers=3)),
        tasks=TasksConfig(factory="app:make"),
        signals=SignalsConfig(dump=False, handlers={"SIGHUP": "app:reload"}),
    )
    assert config.to_env()["PENSTOCK_LOOP_DEBUG"] == "0"
    assert load(env=config.to_env()) == config


def test_to_env_refuses_what_cannot_cross_to_another_process():
    with pytest.raises(ConfigError, match=r"tasks\.factory .* \(Config\.to_env\(\)\): allowed is text"):
        Config(tasks=TasksConfig(factory=print)).to_env()
    with concurrent.futures.ThreadPoolExecutor(1) as executor, pytest.raises(ConfigError, match=r"executors\.default"):
        Config(executors=ExecutorsConfig(default=executor)).to_env()


def test_every_time_has_an_end_that_native_code_can_count_to():
    import penstock

    longest = {}
    for group, made in GROUPS.items():
        times = [item.name for item in fields(made) if item.name.endswith("_s")]
        for name in times:
            with pytest.raises(ConfigError, match="1e9"):
                made(**{name: 1e11})
        longest[group] = made(**dict.fromkeys(times, 1e9))
    loop = penstock.new_event_loop(Config(**longest))
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()


def test_a_token_is_shown_nowhere() -> None:
    secret = "a-secret-of-24-characters"
    config = Config.load(env={"PENSTOCK_MONITOR_PAGE_TOKEN": secret})
    assert config.monitor.page_token == secret
    assert secret not in repr(config)
    assert deviations(config)["monitor.page_token"] == ("(hidden)", None)
    with pytest.raises(ConfigError) as error:
        Config.load(env={"PENSTOCK_MONITOR_PAGE_TOKEN": "too-short"})
    assert "too-short" not in str(error.value)
