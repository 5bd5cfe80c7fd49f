"""Lanes in the config: as objects, tables, text and variables; their defaults, checks and way back to variables."""

import concurrent.futures
import pickle

import pytest

from penstock import Config, ExecutorsConfig, LaneConfig
from penstock.errors import ConfigError

PROCESSES = LaneConfig("processes")


def load(path=None, *, env=None, overrides=None):
    return Config.load(path, env=env or {}, overrides=overrides or {}).executors


def variables(**texts):
    return load(env={f"PENSTOCK_EXECUTORS_{name}": text for name, text in texts.items()})


def test_there_are_three_lanes_by_default():
    executors = ExecutorsConfig()
    assert executors.default == "io"
    assert executors.declared() == {"io": LaneConfig(), "cpu": PROCESSES, "dns": LaneConfig()}


def test_a_lane_as_text_begins_with_its_kind():
    told = variables(CPU="processes workers=4 full=shed preload=numpy,app.models timeout_s=2")
    assert told.cpu == LaneConfig("processes", workers=4, full="shed", preload=("numpy", "app.models"), timeout_s=2.0)


def test_a_lane_that_says_no_kind_keeps_its_own():
    told = load(overrides={"executors.cpu": "workers=3", "executors.dns": "queue_jobs=5", "executors.io": "workers=9"})
    assert told.cpu == LaneConfig("processes", workers=3)
    assert told.dns == LaneConfig(queue_jobs=5)
    assert told.io == LaneConfig(workers=9)


def test_another_kind_brings_its_own_defaults():
    assert variables(DNS="processes").dns == PROCESSES
    assert variables(CPU="dask://scheduler:8786 workers=10").cpu == LaneConfig("dask://scheduler:8786", workers=10)


def test_lanes_of_the_programs_own_are_text_too():
    told = variables(LANES="db=threads workers=8; gpu=processes workers=1;")
    assert told.lanes == {"db": LaneConfig(workers=8), "gpu": LaneConfig("processes", workers=1)}
    assert list(told.declared()) == ["io", "cpu", "dns", "db", "gpu"]


FILE = """
[executors]
default = "db"
dns = "threads workers=2"

[executors.cpu]
workers = 4
preload = ["numpy", "app.models"]
context = ["app.log:request_id"]
initializer = "app:set_up"
max_age_s = 3600

[executors.lanes]
gpu = "processes workers=1"

[executors.lanes.db]
workers = "8"
"""


def test_a_file_has_lanes_as_tables_or_as_text(tmp_path):
    path = tmp_path / "penstock.toml"
    path.write_text(FILE)
    told = load(path)
    assert (told.default, told.dns.workers) == ("db", 2)
    assert told.cpu == LaneConfig(
        "processes",
        workers=4,
        preload=("numpy", "app.models"),
        context=("app.log:request_id",),
        initializer="app:set_up",
        max_age_s=3600,
    )
    assert told.lanes == {"gpu": LaneConfig("processes", workers=1), "db": LaneConfig(workers=8)}


def test_a_single_key_of_a_lane_changes_what_lies_below(tmp_path):
    path = tmp_path / "penstock.toml"
    path.write_text(FILE)
    env = {"PENSTOCK_EXECUTORS_CPU_WORKERS": "7", "PENSTOCK_EXECUTORS_CPU_MAX_AGE_S": "none"}
    told = load(path, env=env, overrides={"executors.lanes.db.full": "shed", "executors.lanes.new": "workers=1"})
    assert (told.cpu.workers, told.cpu.max_age_s, told.cpu.initializer) == (7, None, "app:set_up")
    assert told.lanes["db"] == LaneConfig(workers=8, full="shed")
    assert told.lanes["gpu"] == LaneConfig("processes", workers=1)
    assert told.lanes["new"] == LaneConfig(workers=1)


def test_of_one_source_a_key_goes_on_top_of_its_lane():
    told = load(overrides={"executors.cpu.workers": "7", "executors.cpu": "processes workers=2 full=shed"})
    assert told.cpu == LaneConfig("processes", workers=7, full="shed")
    assert variables(CPU="processes workers=2", CPU_WORKERS="7").cpu.workers == 7


def test_a_lane_as_a_whole_takes_the_place_of_what_lies_below():
    told = load(env={"PENSTOCK_EXECUTORS_CPU": "workers=7 full=shed"}, overrides={"executors.cpu": "workers=2"})
    assert told.cpu == LaneConfig("processes", workers=2)


def make_pool():
    return concurrent.futures.ThreadPoolExecutor(1)


def test_in_python_a_lane_may_be_an_executor_or_what_makes_one():
    with make_pool() as pool:
        assert LaneConfig(pool).kind is pool
    assert LaneConfig(make_pool).kind is make_pool
    assert LaneConfig("app.pools:make").kind == "app.pools:make"
    assert ExecutorsConfig(lanes={"a": "workers=2", "b": {"workers": 3}}).lanes["b"] == LaneConfig(workers=3)


@pytest.mark.parametrize(
    ("text", "key", "value", "allowed"),
    [
        ("proceses", "kind", "proceses", '"threads", "processes"'),
        ("dask://scheduler", "kind", "dask://scheduler", '"dask://host:port"'),
        ("ray://h:99999", "kind", "ray://h:99999", '"ray://host:port"'),
        ("dask://h:1/path", "kind", "dask://h:1/path", '"dask://host:port"'),
        ("workers=0", "workers", "0", "a whole number of workers from 1 to 10000, or none"),
        ("workers=many", "workers", "many", "a whole number of workers"),
        ("min_workers=5 workers=2", "min_workers", 5, "at most the 2 of workers"),
        ("queue_jobs=0", "queue_jobs", "0", "a whole number of jobs of at least 1"),
        ("queue_bytes=1.5", "queue_bytes", "1.5", "a whole number of bytes"),
        ("full=block", "full", "block", "one of 'wait', 'shed', 'caller_runs', 'drop_oldest'"),
        ("timeout_s=0", "timeout_s", "0", "a number of seconds, more than 0, at most 1e9, or none"),
        ("start=thread", "start", "thread", "one of 'forkserver', 'spawn', 'fork'"),
        ("preload=a-b", "preload", "a-b", "names of modules"),
        ("context=request_id", "context", "request_id", 'names "module:name"'),
        ("initializer=setup", "initializer", "setup", 'the text "module:name"'),
        ("grace_s=-1", "grace_s", "-1", "a number of seconds, 0 to 1e9"),
        ("poison_kills=0", "poison_kills", "0", "a whole number of workers"),
        ("wrkers=4", "wrkers", "4", "did you mean 'workers'?"),
        ("zzzz=4", "zzzz", "4", "a key of a lane: kind, workers, min_workers"),
    ],
)
def test_a_bad_value_names_the_lane_the_key_and_the_source(text, key, value, allowed):
    for given, name, source in (
        ({"env": {"PENSTOCK_EXECUTORS_CPU": text}}, "cpu", "variable PENSTOCK_EXECUTORS_CPU"),
        ({"overrides": {"executors.lanes.db": f"processes {text}" if "=" in text else text}}, "lanes.db", "option"),
    ):
        with pytest.raises(ConfigError) as caught:
            load(**given)
        assert caught.value.key == f"executors.{name}.{key}"
        assert caught.value.value == value
        assert f"({source}" in str(caught.value)
        assert allowed in str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("told", "message"),
    [
        ({"CPU": "processes 4"}, r"executors\.cpu = 'processes 4' \(variable .*\('4' is none\)"),
        ({"LANES": "db"}, r"executors\.lanes\.db = '' \(variable PENSTOCK_EXECUTORS_LANES\): allowed is a lane: text"),
        ({"LANES": "cpu=threads"}, r"executors\.lanes\.cpu = 'threads' .*other than io, cpu, dns"),
        ({"LANES": "a b=threads"}, r"executors\.lanes\.a b = 'threads' .*letters, digits"),
        ({"DEFAULT": "db"}, r"executors\.default = 'db' \(variable PENSTOCK_EXECUTORS_DEFAULT\): .*\(io, cpu, dns\)"),
        ({"IO": "threads max_jobs=3"}, r"executors\.io\.max_jobs = 3 \(variable .*IO\): .* in a lane of threads"),
        ({"CPU_WORKRS": "3"}, r"PENSTOCK_EXECUTORS_CPU_WORKRS = '3'; did you mean 'PENSTOCK_EXECUTORS_CPU_WORKERS'"),
    ],
)
def test_what_does_not_go_together_is_one_clear_line(told, message):
    with pytest.raises(ConfigError, match=message):
        variables(**told)


def test_a_bad_lane_from_python_is_one_clear_line():
    with pytest.raises(ConfigError, match=r"lane\.workers = 0 \(LaneConfig\(\)\): allowed is a whole number"):
        LaneConfig(workers=0)
    with pytest.raises(ConfigError, match=r"executors\.cpu = 5 \(ExecutorsConfig\(\)\): allowed is a lane"):
        ExecutorsConfig(cpu=5)
    with pytest.raises(ConfigError, match=r"executors\.lanes\.db = 5 \(ExecutorsConfig\(\)\): allowed is a lane"):
        ExecutorsConfig(lanes={"db": 5})


def test_a_bad_table_names_its_file(tmp_path):
    path = tmp_path / "penstock.toml"
    path.write_text("[executors.lanes.db]\npreload = 'x'\nworkers = 1.5\n")
    with pytest.raises(ConfigError, match=r"executors\.lanes\.db\.workers = 1\.5 \(file .*penstock\.toml\)"):
        load(path)


@pytest.mark.parametrize(
    "executors",
    [
        ExecutorsConfig(cpu=LaneConfig("processes", workers=2, timeout_s=0.1, preload=("a", "b.c"), max_jobs=7)),
        ExecutorsConfig(dns=LaneConfig(), io=LaneConfig("app:make", workers=3)),
        ExecutorsConfig(cpu=LaneConfig("ray://[::1]:10001", context=("a:b", "c:d")), default="cpu"),
        ExecutorsConfig(default="db", lanes={"db": LaneConfig(workers=8), "gpu": LaneConfig("processes", workers=1)}),
    ],
)
def test_a_lane_goes_to_variables_and_comes_back_the_same(executors):
    config = Config(executors=executors)
    assert Config.load(env=config.to_env()) == config
    assert pickle.loads(pickle.dumps(config)) == config


def test_an_object_in_a_lane_cannot_become_a_variable():
    told = ExecutorsConfig(cpu=LaneConfig("processes", initializer=print))
    with pytest.raises(ConfigError, match=r"executors\.cpu\.initializer = .*Config\.to_env\(\)"):
        Config(executors=told).to_env()
    with pytest.raises(ConfigError, match=r"executors\.lanes\.own\.kind = "):
        Config(executors=ExecutorsConfig(lanes={"own": LaneConfig(make_pool)})).to_env()
