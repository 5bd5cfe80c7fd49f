"""The lane over Ray: against a local cluster, in a program of its own, where Ray is installed."""

import os
import signal
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from penstock.config import LaneConfig
from penstock.errors import ConfigError
from penstock.executors.backends.ray import RayLane

ROOT = Path(__file__).parents[3]
PROGRAM = """
import os, signal, threading, time
import ray
from penstock.config import LaneConfig
from penstock.errors import PoisonJob, RemoteError, UnpicklableError
from penstock.executors.backends.ray import RayLane

ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, _temp_dir=os.environ["FOLDER"])
lane = RayLane("cpu", LaneConfig("ray://127.0.0.1:10001"))


def ends(fn, *args):
    try:
        return lane.submit(fn, *args).result(30)
    except Exception as problem:
        return problem


assert ends(pow, 2, 5) == 32
assert ends(os.getpid) != os.getpid()
assert lane.submit(dict, num_cpus=1, fn=2).result(30) == {"num_cpus": 1, "fn": 2}
problem = ends(int, "x")
assert type(problem) is ValueError and "invalid literal" in str(problem), problem
assert isinstance(ends(lambda lock: 1, threading.Lock()), UnpicklableError)
assert isinstance(ends(lambda: os._exit(3)), PoisonJob)
job = lane.submit(time.sleep, 60)
while not job.running():
    pass
assert job.cancel()
assert ends(abs, -1) == 1
lane.shutdown()
assert ray.is_initialized()
counts = lane.statistics().completed
assert (counts["worker_lost"], counts["cancelled"]) == (1, 1), counts
ray.shutdown()
print("done")
"""


@pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed: it weighs 80 MB and starts in seconds")
def test_jobs_run_in_a_local_cluster_and_nothing_is_left(tmp_path_factory):
    # Ray's sockets lie here, and a path of theirs has 107 bytes at most
    folder = tmp_path_factory.mktemp("r")
    told = {"FOLDER": str(folder), "HOME": str(folder), "RAY_TMPDIR": str(folder), "RAY_USAGE_STATS_ENABLED": "0"}
    environment = os.environ | told | {"PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "src")))}
    line = [sys.executable, "-c", PROGRAM]
    process = subprocess.Popen(
        line, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment, start_new_session=True
    )
    try:
        text, _ = process.communicate(timeout=50)
        assert (process.returncode, text.splitlines()[-1]) == (0, "done"), text
    finally:
        end_session(process.pid)


def end_session(session):
    """Kill the session of the program, in case it failed."""
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdecimal() and os.getsid(int(entry.name)) == session:
                os.kill(int(entry.name), signal.SIGKILL)
        except ProcessLookupError:
            pass


def test_a_missing_package_names_the_extra(monkeypatch):
    monkeypatch.setattr("penstock.executors.backends.ray.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'penstock\[ray\]'") as caught:
        RayLane("cpu", LaneConfig("ray://127.0.0.1:10001"))
    assert "\n" not in str(caught.value)
