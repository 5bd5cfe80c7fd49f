from typing_extensions import disjoint_base

from penstock._core.events.handle import Handle, Runnable
from penstock._core.events.poller import Source

@disjoint_base
class WaitingCall(Runnable): ...

@disjoint_base
class Watch(Source):
    @property
    def reader(self) -> Handle | WaitingCall | None: ...
    @property
    def writer(self) -> Handle | WaitingCall | None: ...
