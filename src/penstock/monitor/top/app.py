"""The application: its screens, the sampler behind them, and the keys of all screens."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any, ClassVar

from textual.app import App
from textual.message import Message

from penstock.monitor.top.main_screen import VIEWS, MainScreen
from penstock.monitor.top.sampler import TopSampler
from penstock.monitor.top.screens import ChoiceScreen, HelpScreen, TaskScreen, help_text
from penstock.monitor.top.state import EVERY, TopState, TopWish

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from penstock.monitor.sources import ProcessSource

__all__ = ["TopApp", "is_colourless"]

TICK_S = 0.5
# the terminal's own colours
THEME = "ansi-dark"
COLOURLESS = ("dumb", "vt100", "vt102", "vt220", "linux-m")


class _Sampled(Message):  # type: ignore[misc]
    """A new state of the sampler."""

    def __init__(self, state: TopState) -> None:
        super().__init__()
        self.state = state


class TopApp(App[None]):  # type: ignore[misc]
    """`penstock top`. `open_source(pid)` returns the source of a process or a supervisor.

    Without `pid` the user chooses one of `choices`.
    """

    TITLE = "penstock top"
    ENABLE_COMMAND_PALETTE = False
    BINDINGS: ClassVar[Any] = [
        ("q", "quit", ""),
        ("ctrl+c", "quit", ""),
        ("p", "pause", ""),
        ("question_mark", "help", ""),
        ("w", "workers", ""),
    ]
    CSS = "Screen { background: ansi_default; color: ansi_default; }"

    def __init__(
        self,
        open_source: Callable[[int], ProcessSource],
        pid: int | None,
        *,
        choices: Sequence[tuple[int, str]] = (),
        interval_s: float = 0.5,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(ansi_color=True)
        self._open_source, self._pid, self._choices = open_source, pid, choices
        self._interval_s, self._now_s = interval_s, now_s
        self._sampler: TopSampler | None = None
        self._answered_s = now_s()
        self._main = MainScreen(self._wish, interval_s)
        self.problem = ""

    def on_mount(self) -> None:
        """Show the main screen, or the choice of a process first."""
        self.theme = THEME
        self.push_screen(self._main)
        self.set_interval(TICK_S, self._tick)
        if self._pid is None:
            self.push_screen(ChoiceScreen("Choose a process", self._choices), self._begin)
        else:
            self._begin(self._pid)

    def _begin(self, pid: int | None) -> None:
        if pid is None:
            self.exit()
            return
        self._answered_s = self._now_s()
        self._sampler = TopSampler(
            self._open_source(pid), self._interval_s, lambda state: self.post_message(_Sampled(state))
        )
        self._sampler.wish(self._main.asked())
        self._sampler.start()

    def on_unmount(self) -> None:
        """End the sampler."""
        if self._sampler is not None:
            self._sampler.close()

    def _wish(self, wish: TopWish) -> None:
        screen = self.screen
        inspected = (screen.pid, screen.number) if isinstance(screen, TaskScreen) else None
        if self._sampler is not None:
            self._sampler.wish(TopWish(wish.scope, wish.tasks, inspected))

    def on__sampled(self, event: _Sampled) -> None:
        """Show a new state on the screens."""
        self._answered_s = self._now_s()
        self._main.silent_s = 0.0
        for screen in self.screen_stack:
            if isinstance(screen, (MainScreen, TaskScreen)) and screen.is_mounted:
                screen.take(event.state)

    def _tick(self) -> None:
        """Show that the sampler waits for an answer."""
        if not self._main.is_paused and self._main.is_mounted:
            self._main.silent_s = max(0.0, self._now_s() - self._answered_s - self._interval_s)
            self._main.tick()

    # --- keys

    def action_pause(self) -> None:
        """Pause or continue."""
        self._main.is_paused = not self._main.is_paused
        self._answered_s = self._now_s()
        if self._sampler is not None:
            self._sampler.pause(is_paused=self._main.is_paused)
        self._main.tick()

    def action_help(self) -> None:
        """Show the keys and the columns."""
        self.push_screen(HelpScreen(help_text(VIEWS, self.size.width - 2)))

    def action_workers(self) -> None:
        """Choose one worker, or all together."""
        every = [each for each in self._main.state.processes if not each.has_ended]
        if self.screen is not self._main or len(every) < 2:
            return
        choices = [(EVERY, f"all {len(every)} workers together")]
        choices += [(each.pid, f"worker {each.number}  pid {each.pid}") for each in every]
        self.push_screen(ChoiceScreen("Choose a worker", choices), self._chosen)

    def _chosen(self, scope: int | None) -> None:
        if scope is not None:
            self._main.choose_scope(scope)

    def inspect(self, pid: int, number: int) -> None:
        """Show a task in detail."""
        self.push_screen(TaskScreen(pid, number, self.inspect))
        self._wish(self._main.asked())


def is_colourless(environ: Mapping[str, str] | None = None) -> bool:
    """Return whether the terminal has no colours, or the user wants none."""
    given = os.environ if environ is None else environ
    term = given.get("TERM", "")
    return bool(given.get("NO_COLOR")) or term in COLOURLESS or term.endswith(("-m", "-mono"))
