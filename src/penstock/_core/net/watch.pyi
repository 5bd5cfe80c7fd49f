from typing_extensions import disjoint_base

from penstock._core.events.handle import Handle
from penstock._core.events.poller import Source

@disjoint_base
class Watch(Source):
    @property
    def reader(self) -> Handle | None: ...
    @property
    def writer(self) -> Handle | None: ...
