from typing_extensions import disjoint_base

from penstock._core.held import Held
from penstock._core.lingering import Lingering
from penstock._core.parked import Parked
from penstock._core.poller import Poller
from penstock._core.ready import Ready
from penstock._core.wheel import Wheel

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
