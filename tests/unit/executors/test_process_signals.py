"""Signals and process groups: what reaches a whole service costs no job, and what jobs start is as any program."""

import contextlib
import os
import pathlib
import signal
import subprocess
import sys

import pytest

from tests.support.waiting import until, wait_until
from tests.unit.executors import calls
from tests.unit.executors.shared import children, is_zombie, lines, run

ROOT = pathlib.Path(__file__).parents[3]
STARTS = pytest.mark.parametrize("start", ["spawn", "forkserver", "fork"])
pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="reads /proc"),
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning"),
]

SERVICE = """
import asyncio, signal, sys
sys.path[:0] = {path!r}
import penstock
from tests.unit.executors import calls

async def main():
    asked = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, asked.set)
    job = asyncio.create_task(penstock.offload(calls.wait_and_tell, {log!r}, {gate!r}))
    await asked.wait()
    print("asked to end", flush=True)
    print("job", await job, flush=True)
    print("next", await penstock.offload(abs, -1), flush=True)

if __name__ == "__main__":
    {runner}
"""
RUNNERS = {
    "penstock": "penstock.run(main())",
    "asyncio": "asyncio.run(main())",
    "uvloop": "import uvloop; uvloop.run(main())",
}


DRAIN = """
import asyncio, sys
sys.path[:0] = {path!r}
import penstock
from tests.unit.executors import calls

async def main():
    loop = asyncio.get_running_loop()
    loop.add_drain_hook(lambda loop: print("draining", flush=True))
    job = asyncio.ensure_future(penstock.offload(calls.wait_and_tell, {log!r}, {gate!r}))
    job.add_done_callback(lambda job: print("job", job.result(), flush=True))
    await asyncio.sleep(60)

if __name__ == "__main__":
    penstock.run(main(), config=penstock.Config(signals=penstock.SignalsConfig(drain_s=40)))
"""


def parent_of(pid):
    return int(pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1].split()[1])


@contextlib.contextmanager
def started(template, tmp_path, **told):
    """A program with one job that runs, in a session of its own; and what lets the job end."""
    log, gate = tmp_path / "log", tmp_path / "gate"
    text = template.format(path=[str(ROOT / "src"), str(ROOT)], log=str(log), gate=str(gate), **told)
    command = [sys.executable, "-c", text]
    with subprocess.Popen(command, stdout=-1, stderr=-1, text=True, cwd=ROOT, start_new_session=True) as program:
        try:
            wait_until(lambda: lines(log) or program.poll() is not None)
            yield program, gate
        finally:
            program.kill()


@pytest.fixture(params=list(RUNNERS))
def service(request, tmp_path):
    """The service on each loop."""
    pytest.importorskip(request.param)
    with started(SERVICE, tmp_path, runner=RUNNERS[request.param]) as found:
        yield found


def kill_group(program, number):
    os.killpg(program.pid, number)


def kill_each(program, number):
    """As systemd does by default, for a control group."""
    for pid in [program.pid, *children(program.pid)]:
        os.kill(pid, number)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("send", [kill_group, kill_each])
def test_a_signal_for_a_whole_service_costs_no_job(service, send, number):
    program, gate = service
    send(program, number)
    assert program.stdout.readline() == "asked to end\n", program.communicate(timeout=40)
    gate.touch()
    out, err = program.communicate(timeout=40)
    assert [line.split()[0] for line in out.splitlines()] == ["job", "next"], err
    assert (program.returncode, err) == (0, "")


# a forkserver's interpreter imports it before it imports anything of penstock: the first one waits here
SITECUSTOMIZE = """
import os, pathlib, signal, sys

log = pathlib.Path({log!r})
if "multiprocessing.forkserver" in " ".join(sys.orig_argv) and not log.exists():
    log.write_text(str(os.getpid()))
    signal.pause()
"""
STARTING = """
import asyncio, signal
import penstock

async def main():
    asked = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, asked.set)
    job = asyncio.create_task(penstock.offload(abs, -1))
    await asked.wait()
    print("job", await job)

asyncio.run(main())
"""


def test_a_signal_for_a_service_whose_forkserver_is_coming_up_costs_no_job(tmp_path):
    log = tmp_path / "log"
    (tmp_path / "sitecustomize.py").write_text(SITECUSTOMIZE.format(log=str(log)))
    told = {**os.environ, "PYTHONPATH": f"{tmp_path}:{ROOT / 'src'}"}
    command = [sys.executable, "-c", STARTING]
    with subprocess.Popen(command, stdout=-1, stderr=-1, text=True, env=told, start_new_session=True) as program:
        try:
            wait_until(lambda: lines(log) or program.poll() is not None)
            kill_group(program, signal.SIGTERM)
            out, err = program.communicate(timeout=40)
        finally:
            program.kill()
    assert (out, err, program.returncode) == ("job 1\n", "", 0)


def test_a_drain_waits_for_a_job_whose_service_was_told_to_end(tmp_path):
    with started(DRAIN, tmp_path) as (program, gate):
        kill_each(program, signal.SIGTERM)
        assert program.stdout.readline() == "draining\n"
        gate.touch()
        out, err = program.communicate(timeout=40)
    assert out.split()[:1] == ["job"], err


def test_a_killed_forkserver_costs_no_job(loop, lane, tmp_path):
    cpu, made = lane(workers=2)
    gate = tmp_path / "gate"

    async def main():
        job = cpu(calls.wait_and_tell, str(tmp_path / "log"), str(gate))
        await until(lambda: lines(tmp_path / "log"))
        worker = int(lines(tmp_path / "log")[0])
        forkserver = parent_of(worker)
        assert forkserver != os.getpid()
        os.kill(forkserver, signal.SIGKILL)
        await until(lambda: is_zombie(forkserver))
        # two at once: one of them in a worker that a new forkserver has started
        assert await cpu(calls.pid) != worker
        gate.touch()
        assert await job == worker
        return worker

    worker = run(loop, main())
    assert made.statistics().restarts["crash"] == 0
    assert made.statistics().completed["worker_lost"] == 0
    run(loop, lost_without_a_forkserver(cpu, made, worker))


async def lost_without_a_forkserver(cpu, made, worker):
    """A worker that is lost then is noticed, too."""
    os.kill(worker, signal.SIGKILL)
    await until(lambda: made.statistics().restarts["crash"] == 1)
    assert await cpu(calls.pid) != worker


@STARTS
def test_nothing_is_ignored_or_blocked_in_what_a_job_starts(loop, lane, start):
    cpu, _ = lane(start=start)
    found = run(loop, cpu(calls.signals_of_a_program))
    here = calls.signals_of_a_program()
    assert found == here
    assert run(loop, cpu(calls.signals_of_a_fork))


@STARTS
def test_a_job_can_end_what_it_has_started(loop, lane, start):
    cpu, _ = lane(start=start)
    assert run(loop, cpu(calls.terminate_a_program)) == -signal.SIGTERM
    for _ in range(3):
        assert run(loop, cpu(calls.use_a_pool)) == [1, 2]


def test_a_process_that_a_job_has_just_forked_can_be_ended(loop, lane):
    cpu, _ = lane(start="fork")
    assert run(loop, cpu(calls.terminate_a_fork_at_once)) == -signal.SIGTERM


async def test_a_job_killed_for_its_timeout_takes_along_what_it_has_started(loop, lane, tmp_path):
    cpu, _ = lane(grace_s=0.05)
    log = tmp_path / "log"

    await cpu(calls.pid)
    job = cpu(calls.start_a_program, str(log))
    await until(lambda: lines(log))
    job.cancel()
    await until(lambda: is_zombie(int(lines(log)[0])))


def test_what_jobs_have_started_does_not_outlive_a_parent_that_is_killed(tmp_path):
    log = tmp_path / "log"
    text = (
        f"import sys; sys.path[:0] = {[str(ROOT / 'src'), str(ROOT)]!r}\n"
        "import penstock\n"
        "from tests.unit.executors import calls\n"
        "if __name__ == '__main__':\n"
        f"    penstock.run(penstock.offload(calls.start_a_program, {str(log)!r}))\n"
    )
    with subprocess.Popen([sys.executable, "-c", text], cwd=ROOT) as program:
        wait_until(lambda: lines(log))
        program.kill()
    wait_until(lambda: is_zombie(int(lines(log)[0])))
