"""The base of every group of config keys: a frozen dataclass that checks each of its fields."""

from __future__ import annotations

from dataclasses import field, fields
from typing import Any

from penstock.config.converters import Converter, InvalidPart
from penstock.errors import ConfigError

__all__ = ["Group", "key"]


def key(default: Any, converter: Converter, **more: object) -> Any:
    """Return a dataclass field with its default, its converter and further metadata."""
    return field(default=default, metadata={"converter": converter, **more})


class Group:
    """A frozen dataclass whose fields are checked by their converters, in Python as from a file."""

    __slots__ = ()
    # the table of its keys where that is not its name
    GROUP = ""

    def __post_init__(self) -> None:
        group = self.GROUP or type(self).__name__.removesuffix("Config").lower()
        for item in fields(self):  # type: ignore[arg-type]
            converter, value = item.metadata["converter"], getattr(self, item.name)
            key, source = f"{group}.{item.name}", f"{type(self).__name__}()"
            try:
                object.__setattr__(self, item.name, converter.accept(value))
            except InvalidPart as bad:
                raise ConfigError.bad_value(f"{key}.{bad.part}", bad.value, source, bad.allowed) from None
            except (ValueError, TypeError):
                raise ConfigError.bad_value(key, value, source, converter.allowed) from None
