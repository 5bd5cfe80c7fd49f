"""Statistics fields that were renamed: the former name raises an error that names the new one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["refuse_former_names"]


def refuse_former_names(new_names: Mapping[str, str]) -> Callable[[Any, str], NoReturn]:
    """Return a class's `__getattr__` that raises AttributeError; `new_names` maps each former name to the new one."""

    def __getattr__(self: Any, name: str) -> NoReturn:  # noqa: N807  it becomes a method
        new_name = new_names.get(name)
        hint = f": it is named {new_name} now" if new_name else ""
        raise AttributeError(f"{type(self).__name__} has no field {name!r}{hint}", name=name, obj=self)

    return __getattr__
