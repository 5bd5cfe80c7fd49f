"""The runtime: builds loops from a config; the policy, the runner, signals and the drain."""

from penstock.runtime.build import build_loop
from penstock.runtime.policy import EventLoopPolicy, install
from penstock.runtime.runner import Runner, new_event_loop, run

__all__ = ["EventLoopPolicy", "Runner", "build_loop", "install", "new_event_loop", "run"]
