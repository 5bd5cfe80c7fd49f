"""Child processes whose exit the loop's own poller reports, by a pidfd: in any thread, without a child watcher.

`subprocess.Popen` starts the child, and asyncio's transport has its pipes. Where the system gives no pidfd, a thread
waits for the child, as in asyncio.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from asyncio import unix_events
from asyncio.log import logger
from contextlib import suppress
from errno import ENOSYS, EPERM
from typing import TYPE_CHECKING, Any

from penstock.pidfd import open_pidfd_of_child

__all__ = ["SubprocessCalls", "SubprocessTransport"]

# typeshed knows none of this
_unix: Any = unix_events
_stock_watchers = tuple(getattr(_unix, name, None) for name in ("ThreadedChildWatcher", "PidfdChildWatcher"))
_thread_watchers: list[Any] = []

if TYPE_CHECKING:

    class UnixTransport(asyncio.SubprocessTransport):
        """asyncio's transport with the attributes of its own that it has in each version."""

        _loop: Any
        _proc: Any
        _pipes: dict[int, Any]
        _returncode: int | None
        _closed: bool
        _exit_waiters: Any
        _pending_calls: Any

        def __init__(self, *args: Any, **kwargs: Any) -> None: ...
        def __del__(self) -> None: ...
        def _start(self, **kwargs: Any) -> None: ...
        def _check_proc(self) -> None: ...
        def _process_exited(self, returncode: int) -> None: ...
        async def _connect_pipes(self, waiter: Any) -> None: ...
        async def _wait(self) -> int: ...

    class SelectorLoop(asyncio.SelectorEventLoop):
        """asyncio's loop with the seam that typeshed leaves out."""

        async def _make_subprocess_transport(self, *args: Any, **kwargs: Any) -> asyncio.SubprocessTransport: ...

else:
    UnixTransport = unix_events._UnixSubprocessTransport
    SelectorLoop = asyncio.SelectorEventLoop


class SubprocessTransport(UnixTransport):
    """asyncio's transport of a child process, with a pidfd in place of a child watcher."""

    # None: the child has been reaped, or a thread waits for it
    _pidfd: int | None = None

    def _start(self, **kwargs: Any) -> None:
        super()._start(**kwargs)
        self._watch_exit()

    def _watch_exit(self) -> None:
        self._pidfd = open_pidfd_of_child(self._proc.pid)
        if self._pidfd is not None:
            try:
                self._loop._add_reader(self._pidfd, self._exit_ready)
                return
            except OSError:
                # the kernel's bound on watches
                self._close_pidfd()
        _thread_watcher().add_child_handler(self._proc.pid, self._exit_seen)

    def _exit_ready(self) -> None:
        """Reap the child, which has exited."""
        self._loop._remove_reader(self._pidfd)
        try:
            returncode = self._reap()
        finally:
            self._close_pidfd()
        self._process_exited(returncode)

    def _exit_seen(self, pid: int, returncode: int) -> None:
        """Hear of the exit of a child that a thread has waited for."""
        self._process_exited(returncode)

    def _reap(self) -> int:
        """Return the exit code of the exited child, negative for a signal; 255 if other code has reaped it."""
        try:
            found = os.waitid(os.P_PIDFD, self._pidfd or 0, os.WEXITED)
        except ChildProcessError:
            if self._proc.returncode is not None:
                return int(self._proc.returncode)
            pid = self._proc.pid
            logger.warning("child process pid %d exit status already read:  will report returncode 255", pid)
            return 255
        assert found is not None
        return found.si_status if found.si_code == os.CLD_EXITED else -found.si_status

    def _close_pidfd(self) -> None:
        pidfd, self._pidfd = self._pidfd, None
        if pidfd is not None:
            os.close(pidfd)

    def _process_exited(self, returncode: int) -> None:
        """Wake `wait()` now, as asyncio does from 3.14 on: before, it waited for the ends of the pipes too."""
        super()._process_exited(returncode)
        waiters = self._exit_waiters
        if waiters:
            self._exit_waiters = []
            for waiter in waiters:
                if not waiter.done():
                    waiter.set_result(returncode)

    # --- signals: a pidfd never means another process

    def send_signal(self, signal: int) -> None:
        """Send a signal to the child; nothing if it has exited. ProcessLookupError when its pipes have ended too."""
        self._check_proc()
        if self._returncode is None:
            with suppress(ProcessLookupError):
                self._send(signal)

    def _send(self, number: int) -> None:
        if self._pidfd is None:
            os.kill(self._proc.pid, number)
            return
        try:
            signal.pidfd_send_signal(self._pidfd, number)
        except OSError as exc:
            if exc.errno not in (ENOSYS, EPERM):
                raise
            # a sandbox may refuse this call alone
            os.kill(self._proc.pid, number)

    def terminate(self) -> None:
        """Send SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL."""
        self.send_signal(signal.SIGKILL)

    # --- the pipes

    async def _connect_pipes(self, waiter: Any) -> None:
        """Connect the pipes; close them if that fails, or if the transport was closed meanwhile."""
        process = self._proc
        await super()._connect_pipes(waiter)
        has_failed = self._pending_calls is not None
        if has_failed or self._closed:
            self._close_pipes()
        if has_failed:
            for pipe in (process.stdin, process.stdout, process.stderr):
                if pipe is not None:
                    pipe.close()

    def _close_pipes(self) -> None:
        for protocol in self._pipes.values():
            if protocol is not None:
                protocol.pipe.close()

    def close(self) -> None:
        """Close the pipes, and kill a child that still runs. A closed loop cannot close pipes (gh-114177)."""
        pipes = self._pipes
        if self._loop is not None and self._loop.is_closed():
            self._pipes = {}
        try:
            super().close()
        finally:
            self._pipes = pipes

    def __del__(self) -> None:
        super().__del__()
        self._close_pidfd()


class SubprocessCalls(SelectorLoop):
    """Mixin, before asyncio's loop in the bases."""

    async def _make_subprocess_transport(
        self,
        protocol: asyncio.SubprocessProtocol,
        args: Any,
        shell: bool,
        stdin: Any,
        stdout: Any,
        stderr: Any,
        bufsize: int,
        extra: Any = None,
        **kwargs: Any,
    ) -> asyncio.SubprocessTransport:
        if _has_watcher_of_its_own():
            return await super()._make_subprocess_transport(
                protocol, args, shell, stdin, stdout, stderr, bufsize, extra=extra, **kwargs
            )
        waiter = self.create_future()
        transport = SubprocessTransport(
            self, protocol, args, shell, stdin, stdout, stderr, bufsize, waiter=waiter, extra=extra, **kwargs
        )
        try:
            await waiter
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException:
            transport.close()
            await asyncio.shield(transport._wait())
            raise
        return transport


def _has_watcher_of_its_own() -> bool:
    """Return whether the program has set a child watcher of another kind than asyncio's own defaults (up to 3.13)."""
    if sys.version_info >= (3, 14):
        return False
    policy: Any = asyncio.get_event_loop_policy()
    if type(policy).get_child_watcher is not asyncio.DefaultEventLoopPolicy.get_child_watcher:
        return True
    watcher = getattr(policy, "_watcher", None)
    return watcher is not None and type(watcher) not in _stock_watchers


def _thread_watcher() -> Any:
    """Return asyncio's watcher that waits in threads. The process has one, which outlives every loop."""
    if not _thread_watchers:
        make = getattr(_unix, "ThreadedChildWatcher", None) or _unix._ThreadedChildWatcher
        _thread_watchers.append(make())
    return _thread_watchers[0]
