from typing_extensions import disjoint_base

from penstock._core.events.poller import Poller
from penstock._core.events.ready import Ready
from penstock._core.net.deferred_accepts import Parked
from penstock._core.net.wheel import Wheel
from penstock._core.overload.deferred_reads import Held
from penstock._core.overload.lingering import Lingering

def warm_allocator() -> None: ...

@disjoint_base
class Wiring:
    @property
    def ready(self) -> Ready: ...
    @property
    def poller(self) -> Poller: ...
    @property
    def held(self) -> Held: ...
    @property
    def lingering(self) -> Lingering: ...
    @property
    def parked(self) -> Parked: ...
    @property
    def wheel(self) -> Wheel: ...
