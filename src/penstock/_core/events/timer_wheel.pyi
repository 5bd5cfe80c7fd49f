from typing_extensions import disjoint_base

from penstock._core.events.handle import TimerQueue

@disjoint_base
class TimerWheel(TimerQueue):
    @property
    def far_count(self) -> int: ...
