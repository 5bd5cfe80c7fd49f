"""Loop hooks: the mixin of everything that the runtime sets on a loop, native or pure.

The loop calls the hooks and does not know the runtime. One file has each subject: lanes, runs, signals, serving,
tasks.
"""

from __future__ import annotations

from penstock.loop.lanes import ExecutorLanes
from penstock.loop.runs import RunHooks
from penstock.loop.serving import ServerHooks
from penstock.loop.signals import SignalHooks
from penstock.loop.task_hooks import TaskHooks

__all__ = ["LoopHooks"]


class LoopHooks(ExecutorLanes, RunHooks, SignalHooks, ServerHooks, TaskHooks):
    """Mixin, before asyncio's loop in the bases. Every hook is off until the runtime sets it."""
