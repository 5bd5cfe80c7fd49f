from typing import Any

from typing_extensions import disjoint_base

from penstock._core.net.flow_control import FlowControlledTransport

@disjoint_base
class DatagramSender(FlowControlledTransport):
    def sendto(self, data: bytes | bytearray | memoryview, addr: Any = None) -> None: ...
    def get_write_buffer_size(self) -> int: ...
    def _retry(self) -> None: ...
