from typing_extensions import disjoint_base

from penstock._core.events.handle import Runnable

@disjoint_base
class Source(Runnable):
    @property
    def fd(self) -> int: ...

@disjoint_base
class Poller:
    @property
    def fd(self) -> int: ...
    def sources(self) -> dict[int, Source]: ...
