from typing_extensions import disjoint_base

from penstock._core.events.poller import Source
from penstock._core.overload.urgent import UrgentRequests

MOST_AT_ONCE: int

@disjoint_base
class AcceptingSource(Source):
    @property
    def deferred(self) -> int: ...

@disjoint_base
class DeferredAccepts:
    urgent: UrgentRequests | None
    capacity: int
    @property
    def count(self) -> int: ...
    @property
    def most(self) -> int: ...
    @property
    def total(self) -> int: ...
    @property
    def abandoned(self) -> int: ...
    @property
    def shed(self) -> int: ...
    @property
    def closed(self) -> int: ...
    def __len__(self) -> int: ...
    def snapshot(self) -> list[tuple[int, int]]: ...
