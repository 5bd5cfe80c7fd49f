from collections.abc import Callable
from typing import Any

def bind_callback(method: str) -> Callable[..., Any]: ...
