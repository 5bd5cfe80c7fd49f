"""Child processes: exit, signals, pipes and clean-up, as on asyncio's loop; without watcher, handler and thread."""

import asyncio
import contextlib
import gc
import os
import signal
import subprocess
import sys
import threading
import warnings

import pytest

from penstock.loop import EventLoop
from penstock.loop.calls import subprocesses
from tests.support.loops import TIMEOUT_S

from .wire import pattern, settle

SLEEP = [sys.executable, "-c", "import time; time.sleep(60)"]
# ready when it has printed a line
ECHO = "import sys; print('ready', flush=True); sys.stdout.write(sys.stdin.read())"


@pytest.fixture
def ours():
    """penstock's loop, not running."""
    loop = EventLoop()
    yield loop
    loop.close()


def run_on(loop, awaitable):
    return loop.run_until_complete(asyncio.wait_for(awaitable, TIMEOUT_S))


def open_fds():
    return len(os.listdir("/proc/self/fd"))


def children():
    """The numbers of this process's children, zombies too."""
    found = set()
    for thread in os.listdir("/proc/self/task"):
        with open(f"/proc/self/task/{thread}/children") as file:
            found |= set(map(int, file.read().split()))
    return found


def own_transport(process):
    return process._transport


# --- exit and signals


@pytest.mark.parametrize("code", [0, 1, 7, 255])
async def test_the_exit_code_is_the_childs(code):
    process = await asyncio.create_subprocess_exec("sh", "-c", f"exit {code}")
    assert await process.wait() == code
    assert process.returncode == code
    assert await process.wait() == code


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGUSR1, signal.SIGABRT])
async def test_the_exit_code_of_a_signal_is_negative(number):
    process = await asyncio.create_subprocess_exec(*SLEEP)
    process.send_signal(number)
    assert await process.wait() == -number


async def test_a_stopped_child_has_not_exited():
    process = await asyncio.create_subprocess_exec(*SLEEP)
    process.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
    await settle(100)
    assert process.returncode is None
    process.send_signal(signal.SIGCONT)
    process.kill()
    assert await process.wait() == -signal.SIGKILL


async def test_a_signal_after_the_exit_finds_no_process():
    process = await asyncio.create_subprocess_exec("true")
    await process.wait()
    await settle(10)
    for call in (process.kill, process.terminate, lambda: process.send_signal(0)):
        with pytest.raises(ProcessLookupError):
            call()


async def test_a_signal_between_the_exit_and_the_end_of_its_pipes_does_nothing(loop):
    """A grandchild keeps the pipe open; the child's number may belong to another process by then."""
    process = await asyncio.create_subprocess_shell("sleep 60 & echo $!", stdout=-1)
    grandchild = int(await process.stdout.readline())
    while process.returncode is None:
        await asyncio.sleep(0)
    process.kill()
    process.terminate()
    os.kill(grandchild, signal.SIGKILL)
    await process.stdout.read()
    assert await process.wait() == 0


def test_wait_ends_at_the_exit_and_not_at_the_end_of_the_pipes(ours):
    """gh-119710; asyncio up to 3.13 waits for the grandchild."""

    async def main():
        process = await asyncio.create_subprocess_shell("sleep 60 & echo $!", stdout=-1)
        grandchild = int(await process.stdout.readline())
        waiting = [asyncio.ensure_future(process.wait()) for _ in range(3)]
        await settle()
        waiting[0].cancel()
        assert await waiting[1] == await waiting[2] == await process.wait() == 0
        os.kill(grandchild, 0)
        os.kill(grandchild, signal.SIGKILL)
        assert await process.stdout.read() == b""
        await settle(10)

    run_on(ours, main())


def test_no_thread_no_handler_and_no_watcher(ours):
    async def main():
        process = await asyncio.create_subprocess_exec(*SLEEP)
        assert threading.active_count() == threads
        assert signal.getsignal(signal.SIGCHLD) == handler
        process.kill()
        await process.wait()

    threads, handler = threading.active_count(), signal.getsignal(signal.SIGCHLD)
    run_on(ours, main())


def test_children_of_a_loop_in_another_thread(loop_factory):
    def work():
        with asyncio.Runner(loop_factory=loop_factory) as runner:
            found.append(runner.run(talk()))

    async def talk():
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", ECHO, stdin=-1, stdout=-1)
        return await process.communicate(b"hello")

    found = []
    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(TIMEOUT_S)
    assert found == [(b"ready\nhello", None)] * 3


# --- who else reaps


def test_a_child_that_other_code_has_reaped_is_reported_with_255(ours, caplog):
    async def main():
        process = await asyncio.create_subprocess_exec(*SLEEP)
        os.kill(process.pid, signal.SIGKILL)
        os.waitpid(process.pid, 0)
        assert await process.wait() == 255

    run_on(ours, main())
    assert "exit status already read" in caplog.text


def test_a_child_that_popen_has_polled_keeps_its_exit_code(ours, caplog):
    """asyncio reports 255, as of a child that other code has reaped."""

    async def main():
        process = await asyncio.create_subprocess_exec(*SLEEP)
        popen = own_transport(process).get_extra_info("subprocess")
        os.kill(process.pid, signal.SIGTERM)
        assert popen.wait() == -signal.SIGTERM
        assert await process.wait() == -signal.SIGTERM

    run_on(ours, main())
    assert not caplog.text


@pytest.mark.parametrize("refused", ["open", "wait", "watch"])
def test_without_a_pidfd_a_thread_waits(ours, monkeypatch, refused):
    def refuse(*arguments):
        if refused == "wait" and arguments[0] != os.P_PIDFD:
            return waitid(*arguments)  # asyncio's thread waits by it, from 3.14 on
        raise OSError(24, "refused")

    waitid = os.waitid
    if refused == "watch":
        monkeypatch.setattr(ours, "_add_reader", refuse)
    else:
        monkeypatch.setattr(os, "pidfd_open" if refused == "open" else "waitid", refuse)

    async def main():
        process = await asyncio.create_subprocess_exec(*SLEEP)
        monkeypatch.undo()
        assert any(thread.name.startswith(("asyncio-waitpid", "waitpid")) for thread in threading.enumerate())
        process.terminate()
        assert await process.wait() == -signal.SIGTERM
        await settle(10)

    before = open_fds()
    run_on(ours, main())
    assert open_fds() == before


@pytest.mark.parametrize("number", [1, 38])
def test_a_signal_that_a_sandbox_refuses_by_pidfd_goes_by_number(ours, monkeypatch, number):
    def refuse(*_):
        raise OSError(number, "refused")

    monkeypatch.setattr(signal, "pidfd_send_signal", refuse)

    async def main():
        process = await asyncio.create_subprocess_exec(*SLEEP)
        process.terminate()
        assert await process.wait() == -signal.SIGTERM

    run_on(ours, main())


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="there are no child watchers")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_watcher_that_the_program_has_set_is_used(ours):
    class Watcher(asyncio.ThreadedChildWatcher):
        def add_child_handler(self, pid, callback, *args):
            seen.append(pid)
            super().add_child_handler(pid, callback, *args)

    async def main():
        process = await asyncio.create_subprocess_exec("true")
        assert await process.wait() == 0
        return process.pid

    seen = []
    policy = asyncio.get_event_loop_policy()
    former = policy._watcher
    try:
        asyncio.set_child_watcher(Watcher())
        assert run_on(ours, main()) == seen[0]
        asyncio.set_child_watcher(asyncio.ThreadedChildWatcher())
        run_on(ours, main())
        assert len(seen) == 1
    finally:
        policy._watcher = former


# --- what is left behind


@pytest.mark.parametrize("program", ["/no/such/program", "/etc/hostname"])
def test_a_program_that_cannot_be_run_leaves_nothing(loop, run, program):
    async def main():
        tasks = asyncio.all_tasks()
        with pytest.raises(OSError):
            await asyncio.create_subprocess_exec(program, stdin=-1, stdout=-1, stderr=-1)
        assert asyncio.all_tasks() == tasks

    before = open_fds(), children()
    run(main())
    gc.collect()
    assert (open_fds(), children()) == before


@pytest.mark.parametrize("how", ["too much", "preexec_fn", "argument"])
def test_a_spawn_that_fails_leaves_nothing(loop, run, how):
    async def main():
        if how == "too much":
            with pytest.raises(OSError, match="Argument list too long"):
                await asyncio.create_subprocess_exec("true", *["x" * 100_000] * 100, stdout=-1)
        elif how == "preexec_fn":
            with pytest.raises(subprocess.SubprocessError):
                await asyncio.create_subprocess_exec("true", stdin=-1, preexec_fn=lambda: 1 / 0)
        else:
            with pytest.raises(TypeError):
                await asyncio.create_subprocess_exec("true", 7, stdin=-1)

    before = open_fds(), children()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # preexec_fn, with other threads
        run(main())
    gc.collect()
    assert (open_fds(), children()) == before


@pytest.mark.parametrize("turns", range(7))
def test_a_spawn_that_is_cancelled_leaves_no_zombie_descriptor_or_task(ours, turns):
    async def main():
        tasks = asyncio.all_tasks()
        spawning = asyncio.ensure_future(asyncio.create_subprocess_exec(*SLEEP, stdin=-1, stdout=-1, stderr=-1))
        await settle(turns)
        spawning.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            process = await spawning
            process.kill()
            await process.wait()
        await settle(100)
        assert asyncio.all_tasks() == tasks

    before = open_fds(), children()
    run_on(ours, main())
    gc.collect()
    assert (open_fds(), children()) == before


def test_a_spawn_whose_pipes_cannot_be_connected_leaves_nothing(ours, monkeypatch):
    async def refuse(*_):
        raise ZeroDivisionError

    async def main():
        monkeypatch.setattr(ours, "connect_read_pipe", refuse)
        with pytest.raises(ZeroDivisionError):
            await asyncio.create_subprocess_exec(*SLEEP, stdin=-1, stdout=-1, stderr=-1)
        monkeypatch.undo()
        await settle(10)

    before = open_fds(), children()
    run_on(ours, main())
    gc.collect()
    assert (open_fds(), children()) == before


def test_two_hundred_spawns_leave_nothing(ours):
    async def main():
        for number in range(200):
            pipes = {"stdin": -1, "stdout": -1, "stderr": -1} if number % 2 else {}
            process = await asyncio.create_subprocess_exec("true", **pipes)
            if pipes:
                assert await process.communicate(b"") == (b"", b"")
            assert await process.wait() == 0
        await settle(10)

    run_on(ours, asyncio.sleep(0))
    before = open_fds(), threading.active_count(), children()
    ours.run_until_complete(main())
    gc.collect()
    assert (open_fds(), threading.active_count(), children()) == before


def test_a_loop_that_is_closed_while_a_child_runs_kills_it(loop_factory):
    loop = loop_factory()
    process = loop.run_until_complete(asyncio.create_subprocess_exec(*SLEEP))
    transport, pid = process._transport, process.pid
    loop.close()
    with contextlib.suppress(RuntimeError):
        # up to 3.13 asyncio's cannot close the pipes
        transport.close()
    status = signal.SIGKILL
    # the thread in which asyncio waits for a child may have been first
    with contextlib.suppress(*[ChildProcessError] * (type(loop).__module__.partition(".")[0] == "asyncio")):
        status = os.waitpid(pid, 0)[1]
    transport.get_extra_info("subprocess").returncode = -signal.SIGKILL
    assert status == signal.SIGKILL


def test_a_closed_loop_gives_the_pidfd_back(ours):
    before = open_fds()
    loop = EventLoop()
    process = loop.run_until_complete(asyncio.create_subprocess_exec(*SLEEP, stdout=-1))
    pid = process.pid
    process._transport.get_extra_info("subprocess").returncode = 0
    loop.close()
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        del process, loop
        gc.collect()
    assert any("unclosed transport" in str(warning.message) for warning in seen)
    assert open_fds() == before
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


async def test_closing_the_transport_kills_the_child(loop):
    transport, _ = await loop.subprocess_exec(asyncio.SubprocessProtocol, *SLEEP)
    transport.close()
    assert await transport._wait() == -signal.SIGKILL


# --- pipes


async def test_ten_mib_go_through_communicate():
    data = pattern(10 << 20)
    process = await asyncio.create_subprocess_exec("cat", stdin=-1, stdout=-1)
    out, _ = await process.communicate(data)
    assert out == data


async def test_a_child_that_does_not_read_breaks_its_stdin():
    process = await asyncio.create_subprocess_exec("true", stdin=-1)
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        await process.communicate(bytes(1 << 20))
    assert await process.wait() == 0


async def test_a_slow_reader_pauses_the_child():
    process = await asyncio.create_subprocess_exec("head", "-c", "1000000", "/dev/zero", stdout=-1, limit=1000)
    assert await process.stdout.readexactly(10) == bytes(10)
    rest = await process.stdout.read()
    assert (len(rest), await process.wait()) == (999_990, 0)


async def test_the_protocol_hears_of_data_ends_and_exit(loop):
    class Recording(asyncio.SubprocessProtocol):
        def __init__(self):
            self.events, self.done = [], loop.create_future()

        def connection_made(self, transport):
            self.events.append("made")

        def pipe_data_received(self, fd, data):
            self.events.append((fd, data))

        def pipe_connection_lost(self, fd, exc):
            self.events.append((fd, exc))

        def process_exited(self):
            self.events.append("exited")

        def connection_lost(self, exc):
            self.events.append(("lost", exc))
            self.done.set_result(None)

    script = "echo out; echo err >&2"
    transport, protocol = await loop.subprocess_shell(Recording, script, stdin=None)
    await protocol.done
    assert protocol.events[0] == "made"
    assert protocol.events[-1] == ("lost", None)
    seen = set(protocol.events)
    assert {(1, b"out\n"), (2, b"err\n"), (1, None), (2, None), "exited"} <= seen
    for fd in (1, 2):
        assert protocol.events.index((fd, None)) > protocol.events.index((fd, b"out\n" if fd == 1 else b"err\n"))
    transport.close()


def test_a_transport_of_penstock_is_asyncios_with_a_pidfd(ours):
    async def main():
        process = await asyncio.create_subprocess_exec(*SLEEP)
        transport = own_transport(process)
        assert type(transport) is subprocesses.SubprocessTransport
        assert isinstance(transport, asyncio.SubprocessTransport)
        pidfd = transport._pidfd
        assert os.readlink(f"/proc/self/fd/{pidfd}") == "anon_inode:[pidfd]"
        process.kill()
        await process.wait()
        assert transport._pidfd is None

    run_on(ours, main())
