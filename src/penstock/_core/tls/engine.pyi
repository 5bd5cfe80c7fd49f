from typing import Any

from typing_extensions import disjoint_base

@disjoint_base
class Engine:
    @property
    def ssl_object(self) -> Any: ...
