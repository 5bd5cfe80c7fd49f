"""What signals do while a loop runs in the main thread, as the config says.

Handlers are there only during a run; a handler that the program set itself, before or during the run, is left alone.
They are set by `signal.signal`, not by the loop: a loop that is stuck in Python code can still be dumped and ended.
A run in which SIGTERM came ends with SystemExit(143), whatever the main task makes of it; Ctrl-C is asyncio's, later.
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

from penstock.configkinds import signal_number
from penstock.references import resolve_callable
from penstock.runtime.drain import Drain
from penstock.runtime.dump import dump_tasks

if TYPE_CHECKING:
    from penstock.config import SignalsConfig
    from penstock.loop import EventLoop

__all__ = ["LoopSignals"]

Handler = Callable[[int, FrameType | None], Any]


def _is_runners(handler: object) -> bool:
    """Is it what asyncio.Runner sets for SIGINT? That one is asyncio's default, not the program's choice."""
    return isinstance(handler, partial) and getattr(handler.func, "__func__", None) is getattr(
        asyncio.Runner, "_on_sigint", None
    )


class LoopSignals:
    """The run scope of one loop. Entered by the loop around each run."""

    def __init__(self, loop: EventLoop, config: SignalsConfig) -> None:
        self._loop = loop
        self._handlers: dict[int, Handler] = {}
        self._former: dict[int, Any] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._pid = os.getpid()
        # the signal that ends the run, and whether the program has been told
        self._ending: int | None = None
        self._told = False
        self._drain_s = 0.0 if config.drain_s is None else config.drain_s
        if config.drain_s is not None:
            self._handlers |= {signal.SIGTERM: self._on_end, signal.SIGINT: self._on_end}
        if config.dump and hasattr(signal, "SIGUSR1"):
            self._handlers[signal.SIGUSR1] = self._on_dump
        self._chosen = {signal_number(name): self._user_handler(name, h) for name, h in config.handlers.items()}
        self._handlers |= self._chosen

    def __enter__(self) -> None:
        if threading.current_thread() is not threading.main_thread():
            return
        if _is_runners(signal.getsignal(signal.SIGINT)):
            # a new program starts in this loop: what ended the last one counts no more
            self._ending, self._told = None, False
        self._pid = os.getpid()
        for signum, handler in self._handlers.items():
            former = signal.getsignal(signum)
            if self._may_replace(signum, former):
                signal.signal(signum, handler)
                self._former[signum] = former
        if self._former:
            self._watch_arrivals()

    def __exit__(self, kind: object, *_: object) -> None:
        self._restore()
        if kind is None and self._ending is not None and not self._told:
            # the main task ended by itself during the drain, or the program's own handler passed the signal on to us
            # as its last act (uvicorn does): the process still ends by the signal
            self._told = True
            raise _end_of(self._ending)

    def _watch_arrivals(self) -> None:
        # Python only notes a signal; one that comes just before the loop blocks would wait for the next event
        taken = signal.set_wakeup_fd(self._loop.signal_fd(), warn_on_full_buffer=False)
        if taken != -1:
            signal.set_wakeup_fd(taken)

    def _unwatch_arrivals(self) -> None:
        taken = signal.set_wakeup_fd(-1)
        if taken != self._loop.signal_fd() or self._loop.has_signal_handlers():
            signal.set_wakeup_fd(taken)

    def _restore(self) -> None:
        if self._former:
            self._unwatch_arrivals()
        while self._former:
            signum, former = self._former.popitem()
            if signal.getsignal(signum) == self._handlers[signum]:
                signal.signal(signum, former)

    def _may_replace(self, signum: int, former: object) -> bool:
        # a signal ignored by whoever started us (nohup, a shell's &) stays ignored unless the config names it
        if former is signal.SIG_IGN:
            return signum in self._chosen
        return former is signal.SIG_DFL or former is signal.default_int_handler or _is_runners(former)

    # what each signal does

    def _on_dump(self, signum: int, frame: FrameType | None) -> None:
        dump_tasks(self._loop, sys.stderr, frame)

    def _on_end(self, signum: int, frame: FrameType | None) -> None:
        # in a child forked from a running loop the loop is not ours: there the signal does what it does by default
        if self._ending is not None or self._pid != os.getpid():
            _end_now(signum, frame)
        self._ending = signum
        self._loop.call_soon_threadsafe(self._begin_drain, signum)

    def _begin_drain(self, signum: int) -> None:
        Drain(self._loop, self._drain_s, signum).start(partial(self._end, signum))

    def _end(self, signum: int) -> None:
        """The drain is over: now the program itself is told."""
        self._told = True
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
                _end_now(signum, frame)
            self._loop.call_soon_threadsafe(self._run_user_handler, handler, signum)

        return on_signal

    def _run_user_handler(self, handler: Callable[..., Any], signum: int) -> None:
        result = handler(self._loop, signum)
        if asyncio.iscoroutine(result):
            # asyncio holds tasks weakly
            task = self._loop.create_task(result)
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)


def _end_of(signum: int) -> BaseException:
    return KeyboardInterrupt() if signum == signal.SIGINT else SystemExit(128 + signum)


def _raise(error: BaseException) -> None:
    raise error


def _end_now(signum: int, frame: FrameType | None) -> None:
    """The second signal: no waiting, no cleaning up but what Python does for Ctrl-C."""
    if signum == signal.SIGINT:
        signal.default_int_handler(signum, frame)
    signal.signal(signum, signal.SIG_DFL)
    os.kill(os.getpid(), signum)
