"""The Python half of the loop: the class that users see, and what runs once per connection or once per loop.

`EventLoop` is the native loop where the extension is built and `PENSTOCK_PURE` is not `1`. Else, and in a
subinterpreter, it is asyncio's selector loop with penstock's executors and hooks.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, cast

from penstock.errors import ConfigError
from penstock.loop.hooks import LoopHooks
from penstock.loop.selector import SelectorEventLoop as SelectorLoop
from penstock.purity import is_pure_requested

__all__ = ["IN_SUBINTERPRETER", "NATIVE", "EventLoop", "get_running_loop", "loop_class"]

NATIVE: bool = False
# The native core is built, and cannot load here: it serves the main interpreter alone.
IN_SUBINTERPRETER: bool = False
if TYPE_CHECKING:
    EventLoop = SelectorLoop
else:
    EventLoop = SelectorLoop
    if not is_pure_requested():
        try:
            from penstock.loop.eventloop import EventLoop
        except ImportError as refused:
            # not built, or a subinterpreter, which the extension does not load in; a broken build is an error
            not_built = isinstance(refused, ModuleNotFoundError) and (refused.name or "").startswith("penstock._core")
            # CPython's words for an isolated subinterpreter, Cython's for one that shares the GIL (mod_wsgi, uWSGI)
            in_other = any(words in str(refused) for words in ("subinterpreters", "Interpreter change detected"))
            if not not_built and not in_other:
                raise
            IN_SUBINTERPRETER = in_other
        else:
            NATIVE = True


def loop_class(poller: str) -> type[EventLoop]:
    """The loop class for a config's `poller`: auto, epoll or selector. ConfigError for epoll without the extension."""
    if poller == "selector":
        return SelectorLoop
    if poller == "epoll" and IN_SUBINTERPRETER:
        raise ConfigError(
            "loop.poller: epoll needs penstock's native extension, which does not load in a subinterpreter; "
            "use auto or selector"
        )
    if poller == "epoll" and not NATIVE:
        raise ConfigError(
            "loop.poller: epoll needs penstock's native extension, which is not built here or is switched off by "
            "PENSTOCK_PURE=1; use auto or selector"
        )
    return EventLoop


def get_running_loop() -> EventLoop:
    """Return the running loop, with the type of penstock's. RuntimeError where none runs, or another kind of loop."""
    loop = asyncio.get_running_loop()
    if not isinstance(loop, LoopHooks):
        kind = f"{type(loop).__module__}.{type(loop).__qualname__}"
        raise RuntimeError(f"the running loop is {kind}, not penstock's: run the program with penstock.run()")
    return cast("EventLoop", loop)
