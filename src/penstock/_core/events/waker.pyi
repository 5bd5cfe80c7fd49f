from typing_extensions import disjoint_base

@disjoint_base
class Waker:
    @property
    def fd(self) -> int: ...
    def close(self) -> None: ...
