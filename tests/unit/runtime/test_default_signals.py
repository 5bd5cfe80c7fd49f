"""By default a signal does what it does on asyncio's own loop: each claim is held against asyncio's loop, too."""

import signal

import pytest

from penstock.loop import NATIVE
from tests.unit.runtime.child import INT, TERM, Child, run

ASYNCIO = "import asyncio\nrun, new_event_loop = asyncio.run, asyncio.new_event_loop\n"
POLICY = "import asyncio, penstock\npenstock.install()\nrun, new_event_loop = asyncio.run, asyncio.new_event_loop\n"
RUN = "import asyncio, penstock\nrun, new_event_loop = penstock.run, penstock.new_event_loop\n"
RUNNER = """import asyncio, penstock
new_event_loop = penstock.new_event_loop
def run(main):
    with penstock.Runner() as runner:
        return runner.run(main)
"""
WAYS = {"asyncio": (ASYNCIO, {}), "policy": (POLICY, {}), "run": (RUN, {}), "runner": (RUNNER, {})}
if NATIVE:
    WAYS["run-pure"] = (RUN, {"PENSTOCK_PURE": "1"})


@pytest.fixture(params=WAYS)
def way(request):
    return WAYS[request.param]


def test_ctrl_c_raises_at_once_out_of_a_bare_loop_that_waits_or_is_blocked(way):
    start, env = way
    program = (
        start
        + """
import time
async def waits():
    print("ready")
    await asyncio.Event().wait()
async def blocks():
    print("ready")
    time.sleep(200)
for main in waits, blocks:
    loop = new_event_loop()
    try:
        loop.run_until_complete(main())
    except KeyboardInterrupt:
        print("interrupted", main.__name__)
"""
    )
    with Child(program, **env) as child:
        for name in ("waits", "blocks"):
            child.expect("ready")
            child.send(INT)
            child.expect(f"interrupted {name}")


def test_the_first_ctrl_c_cancels_main_and_the_second_raises(way):
    start, env = way
    program = (
        start
        + """
import time
async def main():
    try:
        print("ready")
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        print("cancelled")
        try:
            print("ready")
            time.sleep(200)
        except KeyboardInterrupt:
            print("interrupted")
            raise
run(main())
"""
    )
    ended = run(program, INT, INT, **env)
    assert ended.out.split() == ["ready", "cancelled", "ready", "interrupted"]
    assert ended.returncode == -INT


@pytest.mark.parametrize("signum", [TERM, signal.SIGUSR1])
def test_other_signals_end_the_process_as_they_end_any(way, signum):
    start, env = way
    program = f"{start}\nasync def main():\n    print('ready')\n    await asyncio.Event().wait()\nrun(main())\n"
    ended = run(program, signum, **env)
    assert (ended.returncode, ended.err) == (-signum, "")


def test_no_handler_and_no_wakeup_descriptor_is_set_that_asyncio_does_not_set(way):
    start, env = way
    program = (
        start
        + """
import signal
def now():
    return {signum: signal.getsignal(signum) for signum in signal.valid_signals()}, signal.set_wakeup_fd(-1)
async def main():
    return now()
before = now()
loop = new_event_loop()
print(loop.run_until_complete(main()) == before)
loop.close()
changed, wakeup_fd = run(main())
print(wakeup_fd, [int(signum) for signum in changed if changed[signum] != before[0][signum]])
print(now() == before)
"""
    )
    assert run(program, **env).out.split("\n")[:3] == ["True", f"-1 [{int(INT)}]", "True"]


def test_ctrl_c_never_cuts_the_runners_clean_up_short(way):
    start, env = way
    program = (
        start
        + """
import os, signal
async def gen(name):
    try:
        yield
    finally:
        await asyncio.sleep(0)
        print("closed after", name)
async def all_of(name):
    work = [asyncio.create_task(asyncio.sleep(0.02)) for _ in range(2)]
    if name == "gather":
        await asyncio.gather(*work)
    elif name == "wait":
        await asyncio.wait(work)
    elif name == "shield":
        await asyncio.shield(work[0])
    elif name == "as_completed":
        for future in asyncio.as_completed(work):
            await future
    else:
        async with asyncio.TaskGroup() as group:
            group.create_task(asyncio.sleep(0.02))
async def main(name):
    global kept
    kept = gen(name)
    await anext(kept)
    asyncio.get_running_loop().call_soon(os.kill, os.getpid(), signal.SIGINT)
    await all_of(name)
for name in "gather", "wait", "shield", "as_completed", "TaskGroup":
    try:
        run(main(name))
    except KeyboardInterrupt:
        print("ended", name)
"""
    )
    names = ["gather", "wait", "shield", "as_completed", "TaskGroup"]
    expected = [line for name in names for line in (f"closed after {name}", f"ended {name}")]
    assert run(program, **env).out.splitlines() == expected
