from typing_extensions import disjoint_base

from penstock._core.events.poller import Source
from penstock._core.overload.urgent import Urgent

MOST_AT_ONCE: int

@disjoint_base
class Parker(Source):
    @property
    def parked(self) -> int: ...

@disjoint_base
class Parked:
    urgent: Urgent | None
    bound: int
    @property
    def count(self) -> int: ...
    @property
    def most(self) -> int: ...
    @property
    def total(self) -> int: ...
    @property
    def left(self) -> int: ...
    @property
    def turned_away(self) -> int: ...
    @property
    def given_up(self) -> int: ...
    def __len__(self) -> int: ...
    def snapshot(self) -> list[tuple[int, int]]: ...
