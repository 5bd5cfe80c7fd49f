"""How a lane of executors is told: as a table, or as text that begins with its kind: `processes workers=4 full=shed`.

Given the lane's dataclass, whose fields carry their kinds; knows no lane by name.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from penstock.config.converters import BadPart, Kind, nearest

__all__ = ["LaneKind", "lane", "lanes"]

NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")
ALLOWED = 'a lane: text such as "processes workers=4 full=shed", a table, or a LaneConfig'


@dataclass(frozen=True)
class LaneKind(Kind):
    """A kind whose values have keys of their own: `change(value, key, new)` sets one; `parts` names those known."""

    change: Callable[..., object] = replace
    parts: tuple[str, ...] = ()


def lane(made: type[Any], kind: str, **defaults: object) -> LaneKind:
    """A lane. What is not said is as in `defaults`, which are for this kind only, and then as in the dataclass."""

    def accept(value: object) -> object:
        if isinstance(value, made):
            return value
        if isinstance(value, Mapping):
            return build(value.items())
        if not isinstance(value, str) or not value.strip():
            raise ValueError(value)
        return build(_words(value))

    def build(pairs: Iterable[tuple[str, object]]) -> object:
        given = {name: _part(made, name, value) for name, value in pairs}
        base = {"kind": kind, **defaults} if given.get("kind", kind) == kind else {}
        return _checked(made, **{**base, **given})

    def change(value: Any, name: str, new: object) -> object:
        return _checked(replace, value, **{name: _part(made, name, new)})

    def write(value: Any) -> str:
        # the kind, then what differs from the dataclass or from what the kind alone would give
        text = _part_text(value, "kind")
        bare = [made(), build([("kind", text)])]
        words = [f"{name}={_part_text(value, name)}" for name in parts[1:] if differs(value, name, bare)]
        return " ".join([text, *words])

    def differs(value: object, name: str, others: list[object]) -> bool:
        return any(getattr(value, name) != getattr(other, name) for other in others)

    parts = tuple(item.name for item in fields(made))
    return LaneKind(ALLOWED, accept, accept, write, change, parts)


def _words(text: str) -> Iterator[tuple[str, str]]:
    """`processes workers=4` as pairs of key and text."""
    for place, word in enumerate(text.split()):
        name, equals, value = word.partition("=")
        if equals:
            yield name, value
        elif place == 0:
            yield "kind", word
        else:
            raise BadPart("", text, f"the kind, then words key=value ({word!r} is none)")


def _part(made: type[Any], name: str, value: object) -> object:
    """The value of one key of a lane, from text or as an object."""
    kinds: dict[str, Kind] = {item.name: item.metadata["kind"] for item in fields(made)}
    if name not in kinds:
        raise BadPart(name, value, f"a key of a lane{nearest(name, list(kinds)) or ': ' + ', '.join(kinds)}")
    try:
        return kinds[name].parse(value.strip()) if isinstance(value, str) else kinds[name].accept(value)
    except (ValueError, TypeError):
        raise BadPart(name, value, kinds[name].allowed) from None


def _checked(make: Callable[..., object], *args: object, **given: object) -> object:
    """What `make` makes; the dataclass's own error (a ConfigError: this module knows none) as that of a part."""
    try:
        return make(*args, **given)
    except ValueError as problem:
        key, value, allowed = (getattr(problem, name) for name in ("key", "value", "allowed"))
        raise BadPart(key.partition(".")[2], value, allowed) from None


def _part_text(value: Any, name: str) -> str:
    kind: Kind = next(item.metadata["kind"] for item in fields(value) if item.name == name)
    try:
        return kind.write(getattr(value, name))
    except ValueError:
        raise BadPart(name, getattr(value, name), "") from None


def lanes(made: type[Any], reserved: tuple[str, ...]) -> LaneKind:
    """Lanes by name; the reserved names have keys of their own."""
    one = lane(made, "threads")

    def accept(value: object) -> dict[str, object]:
        if not isinstance(value, Mapping):
            raise ValueError(value)
        return {check_name(name, told): _within(name, told, one.accept, told) for name, told in value.items()}

    def check_name(name: object, told: object) -> str:
        if not isinstance(name, str) or not NAME.fullmatch(name):
            raise BadPart(str(name), told, "a name of letters, digits, - and _")
        if name in reserved:
            raise BadPart(name, told, f"a name other than {', '.join(reserved)}, which are keys of their own")
        return name

    def parse(text: str) -> dict[str, object]:
        pairs = [pair.partition("=") for pair in text.split(";") if pair.strip()]
        return accept({name.strip(): told.strip() for name, _, told in pairs})

    def write(value: Mapping[str, object]) -> str:
        return "; ".join(f"{name}={_within(name, told, one.write, told)}" for name, told in value.items())

    def change(value: Mapping[str, object], path: str, new: object) -> object:
        name, _, part = path.partition(".")
        check_name(name, new)
        told = _within(name, new, one.change, value.get(name, made()), part, new) if part else new
        return accept({**value, name: told})

    allowed = f'names (not {", ".join(reserved)}), each with a lane (as text: "db=threads workers=8; gpu=processes")'
    return LaneKind(allowed, accept, parse, write, change)  # type: ignore[arg-type]


def _within(name: str, told: object, act: Callable[..., Any], *args: object) -> Any:
    """`act(*args)`; an error in it is one of the lane called `name`."""
    try:
        return act(*args)
    except BadPart as bad:
        raise BadPart(".".join(filter(None, (name, bad.part))), bad.value, bad.allowed) from None
    except (ValueError, TypeError):
        raise BadPart(name, told, ALLOWED) from None
