"""An asyncio event loop policy that makes penstock's loops.

It derives from asyncio's default policy, so threads, child watchers and the warnings and errors of `get_event_loop` are
asyncio's on every version. From 3.14 on the public names warn and the underscored ones do not. Where both are removed
(3.16) the class stays importable and its error names the replacement.
"""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Any, Self

from penstock.config.choice import config_or_default
from penstock.errors import PolicyRemovedError
from penstock.runtime.build import build_loop

if TYPE_CHECKING:
    from penstock.config import Config
    from penstock.loop import EventLoop

__all__ = ["EventLoopPolicy", "install"]


class _Removed:
    """The base class where asyncio has no policies."""

    def __init__(self) -> None:
        version = ".".join(str(part) for part in sys.version_info[:2])
        raise PolicyRemovedError(
            f"asyncio has no event loop policies on Python {version}: use penstock.run(main()) or penstock.Runner, "
            "or asyncio.run(main(), loop_factory=penstock.new_event_loop)"
        )


def _asyncio_policy() -> Any:
    module = sys.modules["asyncio.windows_events" if sys.platform == "win32" else "asyncio.unix_events"]
    for name in ("_DefaultEventLoopPolicy", "DefaultEventLoopPolicy"):
        if hasattr(module, name):
            return getattr(module, name)
    return _Removed


def _events_function(name: str) -> Any:
    return getattr(asyncio.events, f"_{name}", None) or getattr(asyncio.events, name)


if TYPE_CHECKING:
    _Base = asyncio.DefaultEventLoopPolicy
else:
    _Base = _asyncio_policy()


class EventLoopPolicy(_Base):
    """A policy whose loops, in any thread, are built from `config`.

    Without a config it uses the one of `penstock run`, else `Config.load()`: `PENSTOCK_*` variables and the file that
    `PENSTOCK_CONFIG` names. As a context manager it is the current policy inside the block, then restores the former
    one. Raises ConfigError, and PolicyRemovedError on Python 3.16 and later.
    """

    def __init__(self, config: Config | None = None) -> None:
        super().__init__()
        self._config = config_or_default(config, "EventLoopPolicy()")
        self._former: list[Any] = []

    @property
    def config(self) -> Config:
        """The config of the loops."""
        return self._config

    def new_event_loop(self) -> EventLoop:
        """Return a new loop, built from the config."""
        return build_loop(self._config)

    def __enter__(self) -> Self:
        self._former.append(_events_function("get_event_loop_policy")())
        _events_function("set_event_loop_policy")(self)
        return self

    def __exit__(self, *_: object) -> None:
        _events_function("set_event_loop_policy")(self._former.pop())


def install(config: Config | None = None) -> None:
    """Make penstock's policy the current one for the whole process. Raises as `EventLoopPolicy` does."""
    _events_function("set_event_loop_policy")(EventLoopPolicy(config))
