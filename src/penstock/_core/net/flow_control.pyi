from typing_extensions import disjoint_base

from penstock._core.net.limited import LimitedTransport

@disjoint_base
class FlowControlledTransport(LimitedTransport):
    def get_write_buffer_limits(self) -> tuple[float, float]: ...
    def set_write_buffer_limits(self, high: float | None = None, low: float | None = None) -> None: ...
    @property
    def _protocol_paused(self) -> bool: ...
