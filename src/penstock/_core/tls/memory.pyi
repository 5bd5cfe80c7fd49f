from typing_extensions import disjoint_base

from penstock._core.tls.engine import Engine

@disjoint_base
class MemoryEngine(Engine): ...
