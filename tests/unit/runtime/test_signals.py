"""Signals in real processes: exit codes as the shell expects them, and what was in flight is done."""

import signal
import socket
import time
from contextlib import suppress

import pytest

import penstock
from penstock.loop import NATIVE
from tests.unit.runtime.child import INT, TERM, Child, run

ASYNCIO_UNDER_THE_POLICY = "import asyncio, penstock\npenstock.install()\nrun = asyncio.run\n"
PENSTOCK_RUN = "import asyncio, penstock\nrun = penstock.run\n"
PURE = {"PENSTOCK_PURE": "1"}
DRAINS = {"PENSTOCK_SIGNALS_DRAIN_S": "10"}
WAYS = {"run": (PENSTOCK_RUN, DRAINS), "policy": (ASYNCIO_UNDER_THE_POLICY, DRAINS)}
if NATIVE:
    WAYS |= {f"{name}-pure": (start, PURE | DRAINS) for name, (start, _) in WAYS.items()}

PLAIN = """
async def main():
    print("ready")
    try:
        await asyncio.Event().wait()
    finally:
        print("cleaned up")
run(main())
"""

ONE_REQUEST = """
async def on_connection(reader, writer):
    print("ready", await reader.readline())
    if await reader.readline():
        writer.write(b"answered")
        await writer.drain()
    writer.close()

async def main():
    server = await asyncio.start_server(on_connection, "127.0.0.1", 0)
    print("port", server.sockets[0].getsockname()[1])
    async with server:
        await server.serve_forever()
run(main())
"""
PATIENCE_S = 30


def wait_until_refused(port: int) -> None:
    """Connect from this process again and again: connecting in the server would block the loop on its own backlog."""
    end_s = time.monotonic() + PATIENCE_S
    with suppress(ConnectionRefusedError):
        while True:
            assert time.monotonic() < end_s, "the server still accepts"
            with suppress(TimeoutError):
                socket.create_connection(("127.0.0.1", port), 1).close()
            time.sleep(0.01)


@pytest.fixture(params=WAYS)
def way(request):
    return WAYS[request.param]


def test_a_plain_script_ends_at_once_on_ctrl_c_as_under_asyncio(way):
    start, env = way
    ended = run(start + PLAIN, INT, **env)
    assert ended.returncode in (-INT, 130)
    assert "KeyboardInterrupt" in ended.err
    assert "cleaned up" in ended.out
    assert "waiting up to" not in ended.err


def test_sigterm_ends_a_plain_script_with_143_after_its_clean_up(way):
    start, env = way
    ended = run(start + PLAIN, TERM, **env)
    assert (ended.returncode, ended.err) == (143, "")
    assert "cleaned up" in ended.out


@pytest.mark.parametrize("signum", [TERM, INT])
def test_a_server_stops_accepting_and_answers_what_is_in_flight(way, signum):
    start, env = way
    with Child("import logging; logging.basicConfig()\n" + start + ONE_REQUEST, **env) as child:
        port = int(child.expect("port").split()[1])
        with socket.create_connection(("127.0.0.1", port), PATIENCE_S) as client:
            client.sendall(b"hello\n")
            child.expect("ready")
            child.send(signum)
            wait_until_refused(port)
            client.sendall(b"the port is closed\n")
            assert client.recv(100) == b"answered"
        assert child.ended().returncode in ((143,) if signum == TERM else (-INT, 130))


def test_what_outlasts_the_drain_time_is_cancelled_and_idle_connections_end(way):
    start, env = way
    program = (
        start
        + """
async def on_connection(reader, writer):
    print("ready")
    try:
        await reader.read()
    finally:
        print("cut")
        writer.close()
async def main():
    server = await asyncio.start_server(on_connection, "127.0.0.1", 0)
    idle = await asyncio.get_running_loop().create_server(asyncio.Protocol, "127.0.0.1", 0)
    print("port", server.sockets[0].getsockname()[1], idle.sockets[0].getsockname()[1])
    async with server, idle:
        await server.serve_forever()
run(main())
"""
    )
    with Child(program, **(env | {"PENSTOCK_SIGNALS_DRAIN_S": "0.05"})) as child:
        ports = child.expect("port").split()[1:]
        clients = [socket.create_connection(("127.0.0.1", int(port)), 5) for port in reversed(ports)]
        child.expect("ready")
        child.send(TERM)
        ended = child.ended()
        for client in clients:
            client.close()
    assert ended.returncode == 143
    assert "cut" in ended.out


STUBBORN = (
    PENSTOCK_RUN
    + """
async def work():
    while True:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            print("not me")
async def main():
    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    print("ready")
    penstock_loop = asyncio.get_running_loop()
    async def hook(loop):
        # signals that come together are one
        await asyncio.sleep(0.2)
        print("ready again")
    penstock_loop.add_drain_hook(hook)
    await asyncio.Event().wait()
run(main())
"""
)


@pytest.mark.parametrize("signum", [TERM, INT])
def test_a_second_signal_ends_at_once_and_says_so(signum):
    ended = run(STUBBORN, signum, signum, **DRAINS)
    assert ended.returncode == 128 + signum
    assert ended.err.count("\n") == 1 and "second signal, the process ends" in ended.err


def test_a_busy_loop_is_ended_by_the_second_signal():
    program = (
        PENSTOCK_RUN
        + """
async def main():
    import signal, time
    print("ready")
    while True:
        if getattr(asyncio.get_running_loop()._run_scope(), "_ending") and not globals().get("told"):
            time.sleep(0.2)
            globals()["told"] = print("ready") or True
run(main())
"""
    )
    assert run(program, TERM, TERM, **DRAINS).returncode == 128 + TERM


def test_sigterm_ends_a_bare_run_forever_with_143():
    program = """
    import penstock
    loop = penstock.new_event_loop()
    loop.call_soon(print, "ready")
    try:
        loop.run_forever()
    finally:
        loop.close()
        print("closed")
    """
    ended = run(program, TERM, **DRAINS)
    assert (ended.returncode, "closed" in ended.out) == (143, True)


@pytest.mark.parametrize("signum", [TERM, INT])
def test_a_main_that_ends_by_itself_during_the_drain_still_ends_by_the_signal(signum):
    program = """
    import asyncio, penstock
    async def main():
        stop = asyncio.Event()
        asyncio.get_running_loop().add_drain_hook(lambda loop: stop.set())
        print("ready")
        await stop.wait()
        await asyncio.sleep(0)
        print("ended by itself")
    async def outer():
        return await asyncio.create_task(main())
    penstock.run(outer())
    """
    ended = run(program, signum, **DRAINS)
    assert ended.returncode in ((143,) if signum == TERM else (-INT, 130))
    assert "ended by itself" in ended.out


def test_a_main_that_outlives_its_cancellation_still_ends_by_sigterm():
    program = (
        PENSTOCK_RUN
        + """
async def main():
    print("ready")
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        print("swallowed")
run(main())
"""
    )
    ended = run(program, TERM, **DRAINS)
    assert (ended.returncode, "swallowed" in ended.out) == (143, True)


def test_a_program_that_passes_the_signal_on_at_its_end_ends_by_it():
    program = """
    import asyncio, penstock, signal
    async def main():
        stop = asyncio.Event()
        former = signal.signal(signal.SIGTERM, lambda *_: stop.set())
        signal.raise_signal(signal.SIGTERM)
        await stop.wait()
        signal.signal(signal.SIGTERM, former)
        signal.raise_signal(signal.SIGTERM)
    penstock.run(main())
    """
    assert run(program, **DRAINS).returncode == 143


def test_a_child_forked_from_a_running_loop_ends_by_the_signals_default():
    program = """
    import asyncio, os, penstock, signal
    async def main():
        child = os.fork()
        if not child:
            os.kill(os.getpid(), signal.SIGTERM)
            os._exit(0)
        print(os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGTERM)
    penstock.run(main())
    """
    ended = run(program, **DRAINS)
    assert (ended.returncode, ended.out, ended.err) == (0, "True\n", "")


@pytest.mark.parametrize(
    "theirs",
    [
        "asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)",
        "signal.signal(signal.SIGTERM, lambda *_: asyncio.get_running_loop().call_soon_threadsafe(stop.set))",
    ],
)
def test_a_handler_of_the_programs_own_wins(theirs):
    program = f"""
    import asyncio, penstock, signal
    async def main():
        stop = asyncio.Event()
        {theirs}
        print("ready")
        await stop.wait()
        print("theirs")
    penstock.run(main())
    """
    ended = run(program, TERM, **DRAINS)
    assert (ended.returncode, ended.err, "theirs" in ended.out) == (0, "", True)


def test_a_handler_set_before_the_run_wins_and_stays():
    program = """
    import asyncio, penstock, signal
    mine = lambda *_: print("mine")
    signal.signal(signal.SIGTERM, mine)
    async def main():
        signal.raise_signal(signal.SIGTERM)
    penstock.run(main())
    print(signal.getsignal(signal.SIGTERM) is mine)
    """
    assert run(program, **DRAINS).out.split() == ["mine", "True"]


def test_former_handlers_are_back_after_the_run_and_threads_set_none():
    program = """
    import asyncio, penstock, signal, threading
    watched = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP)
    def now():
        return [signal.getsignal(signum) for signum in watched]
    async def main():
        return now()
    config = penstock.Config(signals=penstock.SignalsConfig(drain_s=10, dump=True, handlers={"HUP": print}))
    before = now()
    inside = penstock.run(main(), config=config)
    print(all(a != b for a, b in zip(before, inside)), now() == before)
    found = []
    thread = threading.Thread(target=lambda: found.append(penstock.run(main(), config=config)))
    thread.start()
    thread.join()
    print(found == [before])
    off = penstock.Config(signals=penstock.SignalsConfig())
    print([a == b for a, b in zip(before, penstock.run(main(), config=off))])
    """
    # asyncio's runner sets SIGINT itself
    assert run(program).out.split("\n")[:3] == ["True True", "True", "[True, False, True, True]"]


def test_sigusr1_dumps_every_task_down_to_what_it_waits_for(way):
    start, env = way
    program = (
        start
        + """
import signal
async def inner():
    await asyncio.Event().wait()
async def outer():
    await inner()
async def main():
    task = asyncio.create_task(outer(), name="the-outer-task")
    await asyncio.sleep(0)
    signal.raise_signal(signal.SIGUSR1)
    task.cancel()
run(main())
"""
    )
    ended = run(program, PENSTOCK_SIGNALS_DUMP="1", **env)
    assert ended.returncode == 0
    assert "penstock: 2 tasks" in ended.err
    assert "the-outer-task" in ended.err
    assert "in inner" in ended.err
    assert "in main" in ended.err


def test_sigusr1_tells_where_a_loop_is_stuck():
    program = (
        PENSTOCK_RUN
        + """
import sys, threading
def stuck():
    seen = []
    sys.stderr.flush = lambda: seen.append(True)
    print("ready")
    while not seen:
        pass
async def main():
    stuck()
run(main())
"""
    )
    ended = run(program, signal.SIGUSR1, PENSTOCK_SIGNALS_DUMP="1")
    assert (ended.returncode, "in stuck" in ended.err) == (0, True)


def test_the_users_own_signals_reach_functions_and_coroutines():
    program = """
    import asyncio, penstock, signal
    stop = None
    def on_hup(loop, signum):
        print("hup", signum == signal.SIGHUP, loop is asyncio.get_running_loop())
    async def on_usr2(loop, signum):
        await asyncio.sleep(0)
        stop.set()
    async def main():
        global stop
        stop = asyncio.Event()
        signal.raise_signal(signal.SIGHUP)
        signal.raise_signal(signal.SIGUSR2)
        await stop.wait()
    handlers = {"SIGHUP": on_hup, signal.SIGUSR2: on_usr2}
    penstock.run(main(), config=penstock.Config(signals=penstock.SignalsConfig(handlers=handlers)))
    """
    ended = run(program)
    assert (ended.returncode, ended.out.split()) == (0, ["hup", "True", "True"])


def test_a_drain_hook_that_fails_or_hangs_does_not_stop_the_drain():
    program = """
    import asyncio, logging, penstock
    logging.disable()
    async def main():
        loop = asyncio.get_running_loop()
        loop.add_drain_hook(lambda loop: 1 / 0)
        loop.add_drain_hook(lambda loop: asyncio.Event().wait())
        loop.add_drain_hook(lambda loop: print("the last hook"))
        print("ready")
        await asyncio.Event().wait()
    config = penstock.Config(signals=penstock.SignalsConfig(drain_s=0.05))
    penstock.run(main(), config=config)
    """
    ended = run(program, TERM)
    assert (ended.returncode, "the last hook" in ended.out) == (143, True)


class Interrupting:
    """Makes each function of `signal` raise KeyboardInterrupt at its n-th call, before or after its work."""

    def __init__(self, monkeypatch, at, is_before):
        self.calls, self.at, self.is_before = 0, at, is_before
        for name in ("signal", "getsignal", "set_wakeup_fd"):
            monkeypatch.setattr(signal, name, self.wrap(getattr(signal, name)))

    def wrap(self, function):
        def interrupted(*args, **kwargs):
            self.calls += 1
            if self.calls == self.at and self.is_before:
                raise KeyboardInterrupt
            result = function(*args, **kwargs)
            if self.calls == self.at:
                raise KeyboardInterrupt
            return result

        return interrupted


@pytest.mark.parametrize("is_before", [True, False])
@pytest.mark.parametrize("at", range(1, 30))
def test_an_interrupt_between_any_two_steps_leaves_nothing_half_done(monkeypatch, at, is_before):
    def run_once():
        loop.call_soon(loop.stop)
        loop.run_forever()

    def now():
        wakeup_fd = signal.set_wakeup_fd(-1)
        signal.set_wakeup_fd(wakeup_fd)
        return wakeup_fd, [signal.getsignal(signum) for signum in (TERM, INT, signal.SIGUSR1, signal.SIGHUP)]

    config = penstock.Config(signals=penstock.SignalsConfig(dump=True, handlers={"HUP": print}))
    before = now()
    loop = penstock.new_event_loop(config)
    with monkeypatch.context() as patched:
        Interrupting(patched, at, is_before)
        with suppress(KeyboardInterrupt):
            run_once()
    assert now() == before
    run_once()
    loop.close()
