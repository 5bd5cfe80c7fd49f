from typing import Self

from typing_extensions import disjoint_base

from penstock._core.events.poller import Poller, Source

@disjoint_base
class LingeringConnections(Source):
    linger_ns: int
    def __new__(cls, poller: Poller) -> Self: ...
    @property
    def most(self) -> int: ...
    @most.setter
    def most(self, most: int) -> None: ...
    @property
    def count(self) -> int: ...
    @property
    def total(self) -> int: ...
    @property
    def cut(self) -> int: ...
