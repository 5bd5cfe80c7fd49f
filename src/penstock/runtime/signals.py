"""Signal handlers during a run of a loop in the main thread, as the config declares them.

By default none is set, and signals act as with asyncio. Handlers exist only during a run; a handler that the program
set, before or during the run, stays. They are set by `signal.signal`, not by the loop: the tasks of a loop that is
stuck in Python code can still be dumped, and the deadline's thread notices signals that the loop's thread does not. A
run in which SIGTERM or SIGINT began a drain ends with SystemExit(143) or KeyboardInterrupt, whatever the main task
returns.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
from collections.abc import Callable
from functools import partial
from types import FrameType
from typing import TYPE_CHECKING, Any

from penstock.config.converters import signal_number
from penstock.config.references import resolve_callable
from penstock.runtime.deadline import Deadline, DeadlineOptions
from penstock.runtime.drain import Drain
from penstock.runtime.dump import dump_tasks
from penstock.runtime.inflight import mark_tasks

if TYPE_CHECKING:
    from penstock.config import SignalsConfig
    from penstock.loop import EventLoop

__all__ = ["LoopSignals"]

ENDS = frozenset({signal.SIGTERM, signal.SIGINT})

Handler = Callable[[int, FrameType | None], Any]


def _is_runners(handler: object) -> bool:
    """Return True for the SIGINT handler of asyncio.Runner: asyncio's default, not the program's choice."""
    return isinstance(handler, partial) and getattr(handler.func, "__func__", None) is getattr(
        asyncio.Runner, "_on_sigint", None
    )


class LoopSignals:
    """The signal handlers of one loop: a context manager around each run."""

    def __init__(self, loop: EventLoop, config: SignalsConfig) -> None:
        self._loop = loop
        self._drain_s = config.drain_s
        self._drain: Drain | None = None
        self._handlers: dict[int, Handler] = {}
        self._former: dict[int, Any] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._pid = os.getpid()
        # the signal that ends the run, and whether the program has got its exception
        self._ending: int | None = None
        self._is_delivered = False
        # whether asyncio's runner runs this loop, and whether this run is the runner's clean-up
        self._has_runner = self._is_clean_up = False
        if config.drain_s is not None:
            self._handlers |= {signal.SIGTERM: self._on_end, signal.SIGINT: self._on_end}
            loop.wrap_protocol_factories(mark_tasks)
        if config.dump and hasattr(signal, "SIGUSR1"):
            self._handlers[signal.SIGUSR1] = self._on_dump
        self._chosen = {signal_number(name): self._user_handler(name, h) for name, h in config.handlers.items()}
        self._handlers |= self._chosen

    def __bool__(self) -> bool:
        return bool(self._handlers)

    def __enter__(self) -> None:
        if threading.current_thread() is not threading.main_thread():
            return
        self._pid = os.getpid()
        by_runner = _is_runners(signal.getsignal(signal.SIGINT))
        self._is_clean_up, self._has_runner = self._has_runner and not by_runner, self._has_runner or by_runner
        try:
            self._set_handlers()
        except BaseException:
            # a signal's handler may raise between any two of these lines
            self._restore()
            raise

    def __exit__(self, kind: object, *_: object) -> None:
        try:
            self._restore()
        except BaseException:
            self._restore()
            raise
        if self._ending is None or self._is_delivered or kind is not None:
            return
        # The main task ended by itself during the drain, or the program's handler passed the signal on at its end, as
        # uvicorn does. The process still ends by the signal, after a runner's clean-up.
        if self._is_clean_up:
            self._loop.ended_by_at_close = _end_of(self._ending)
        else:
            self._is_delivered = True
            raise _end_of(self._ending)

    def _set_handlers(self) -> None:
        for signum, handler in self._handlers.items():
            former = signal.getsignal(signum)
            if self._may_replace(signum, former):
                self._former[signum] = former
                signal.signal(signum, handler)
        if self._former:
            self._watch_arrivals()

    def _watch_arrivals(self) -> None:
        # Python only notes a signal: one just before the loop blocks would wait for the next event
        if self._drain_s is None:
            self._loop.watch_signals(self._loop.signal_fd())
            return
        options = DeadlineOptions(self._drain_s, self._is_end, waited=self._waited, relay=self._loop.relay_signals)
        self._loop.watch_signals(Deadline.get().serve(options))

    def _restore(self) -> None:
        if not self._former:
            return
        self._loop.unwatch_signals()
        if self._drain_s is not None:
            Deadline.get().serve(None)
        while self._former:
            signum, former = next(iter(self._former.items()))
            if signal.getsignal(signum) == self._handlers[signum]:
                # once the process is ending, a signal outside a run ends it at once
                is_end = self._ending is not None and signum in ENDS
                signal.signal(signum, signal.SIG_DFL if is_end else former)
            self._former.pop(signum)

    def _may_replace(self, signum: int, former: object) -> bool:
        # a signal that the parent process ignores (nohup, a shell's &) stays ignored unless the config names it
        if former is signal.SIG_IGN:
            return signum in self._chosen
        return former is signal.SIG_DFL or former is signal.default_int_handler or _is_runners(former)

    def _is_end(self, signum: int) -> bool:
        return signum in ENDS and signal.getsignal(signum) == self._handlers[signum]

    def _waited(self) -> str:
        return "" if self._drain is None else self._drain.waits_for

    # the handlers

    def _on_dump(self, signum: int, frame: FrameType | None) -> None:
        dump_tasks(self._loop, sys.stderr, frame)

    def _on_end(self, signum: int, frame: FrameType | None) -> None:
        # in a child forked from a running loop, the signal has its default action
        if self._pid != os.getpid():
            _end_by_default(signum, frame)
        is_first, self._ending = self._ending is None, self._ending or signum
        Deadline.get().note(signum)
        if is_first and not self._is_clean_up:
            self._loop.call_soon_threadsafe(self._begin_drain, signum)

    def _begin_drain(self, signum: int) -> None:
        self._drain = Drain(self._loop, self._drain_s or 0.0, signum)
        self._drain.start(partial(self._end, signum))

    def _end(self, signum: int) -> None:
        """End the program after the drain."""
        self._is_delivered = True
        main = self._loop.main_task()
        if main is None:
            self._loop.call_soon(_raise, _end_of(signum))
        else:
            self._loop.ended_by = _end_of(signum)
            main.cancel()

    def _user_handler(self, name: str | int, reference: object) -> Handler:
        handler = resolve_callable(reference, f"signals.handlers.{name}")

        def on_signal(signum: int, frame: FrameType | None) -> None:
            if self._pid != os.getpid():
                _end_by_default(signum, frame)
            self._loop.call_soon_threadsafe(self._run_user_handler, handler, signum)

        return on_signal

    def _run_user_handler(self, handler: Callable[..., Any], signum: int) -> None:
        result = handler(self._loop, signum)
        if asyncio.iscoroutine(result):
            # asyncio keeps only weak references to tasks
            task = self._loop.create_task(result)
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)


def _end_of(signum: int) -> BaseException:
    return KeyboardInterrupt() if signum == signal.SIGINT else SystemExit(128 + signum)


def _raise(error: BaseException) -> None:
    raise error


def _end_by_default(signum: int, frame: FrameType | None) -> None:
    if signum == signal.SIGINT:
        signal.default_int_handler(signum, frame)
    signal.signal(signum, signal.SIG_DFL)
    os.kill(os.getpid(), signum)
