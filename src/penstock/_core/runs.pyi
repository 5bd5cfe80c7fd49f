from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from typing_extensions import disjoint_base

@disjoint_base
class RunLifecycle:
    _closed: bool
    _stopping: bool
    _debug: bool
    _thread_id: int | None

    def _run_forever_setup(self) -> None: ...
    def _run_forever_cleanup(self) -> None: ...
    def run_until_complete(self, future: Any) -> Any: ...
    def _run_within(self, scope: AbstractContextManager[Any], run: Callable[[], None]) -> None: ...
