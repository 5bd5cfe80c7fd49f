"""From what a config or a caller says to a limit: a number, a name, or a limit of the caller's own."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from penstock.pressure.limits.fixed import Fixed
from penstock.pressure.limits.window import Limit

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["NAMES", "make_limit"]

# A module's, imported when it is chosen.
NAMES = {
    "auto": "gradient:Gradient",
    "gradient": "gradient:Gradient",
    "vegas": "vegas:Vegas",
    "aimd": "aimd:Aimd",
    "gradient2": "gradient2:Gradient2",
}


def make_limit(spec: int | str | Limit, *, initial: int | None = None) -> Limit:
    """The limit that `spec` asks for: a whole number is `Fixed`, "auto" is `Gradient()`, a limit is itself.

    Also named: "gradient", "vegas", "aimd", "gradient2"; and a number in words, "64". `initial` is what a named limit
    starts from; others ignore it. Raises ValueError.
    """
    if isinstance(spec, str):
        return _named(spec, initial)
    if isinstance(spec, int):
        return Fixed(spec)
    if isinstance(spec, Limit):
        return spec
    raise ValueError(f"limit = {spec!r}: allowed is {_allowed()}")


def _named(name: str, initial: int | None) -> Limit:
    word = name.strip().lower()
    if word.isdecimal():
        return Fixed(int(word))
    home = NAMES.get(word)
    if home is None:
        raise ValueError(f"limit = {name!r}: allowed is {_allowed()}")
    module, _, kind = home.partition(":")
    maker: Callable[..., Limit] = getattr(import_module(f"penstock.pressure.limits.{module}"), kind)
    return maker() if initial is None else maker(initial)


def _allowed() -> str:
    return f"a whole number of at least 1, {', '.join(map(repr, NAMES))}, or an object with value, reason and update()"
