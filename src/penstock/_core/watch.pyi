"""Watches: what `add_reader` and `add_writer` set on a descriptor."""

from penstock._core.handle import Handle
from penstock._core.poller import Source

class Watch(Source):
    @property
    def reader(self) -> Handle | None: ...
    @property
    def writer(self) -> Handle | None: ...
