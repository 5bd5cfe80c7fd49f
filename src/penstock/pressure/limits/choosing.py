"""Construction of a limit from its specification: a number, a name or a `Limit` object."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from penstock.pressure.limits.fixed import Fixed
from penstock.pressure.limits.window import Limit

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["NAMES", "make_limit"]

# Name to module and class; a module is imported when its limit is chosen.
NAMES = {
    "auto": "gradient:Gradient",
    "gradient": "gradient:Gradient",
    "vegas": "vegas:Vegas",
    "aimd": "aimd:Aimd",
    "gradient2": "gradient2:Gradient2",
}


def make_limit(spec: int | str | Limit, *, initial: int | None = None) -> Limit:
    """Return the limit that `spec` specifies.

    A whole number, or its digits as text ("64"), gives `Fixed`; "auto" and "gradient" give `Gradient`; "vegas", "aimd"
    and "gradient2" give those limits; a `Limit` object is returned as it is. `initial` is the count of permits that a
    named limit starts from; other limits ignore it. Raises ValueError for any other `spec`.
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
