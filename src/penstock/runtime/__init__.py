"""The runtime: builds loops from a config; the policy, the runner, signals and the drain."""

from typing import TYPE_CHECKING

from penstock.lazy import lazy_names

if TYPE_CHECKING:
    from penstock.runtime.build import build_loop
    from penstock.runtime.policy import EventLoopPolicy, install
    from penstock.runtime.runner import Runner, new_event_loop, run

__all__ = ["EventLoopPolicy", "Runner", "build_loop", "install", "new_event_loop", "run"]

if not TYPE_CHECKING:
    # the parent of worker processes uses `penstock.runtime.supervisor` without a loop
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "penstock.runtime.build": ("build_loop",),
            "penstock.runtime.policy": ("EventLoopPolicy", "install"),
            "penstock.runtime.runner": ("Runner", "new_event_loop", "run"),
        },
    )
