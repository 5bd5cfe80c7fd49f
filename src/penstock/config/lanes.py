"""Converters of executor lanes: from a table, or from text such as `processes workers=4 full=shed`.

A lane's dataclass is an argument; its fields have their converters as metadata.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from penstock.config.converters import Converter, InvalidPart, nearest

__all__ = ["LaneConverter", "lane", "lanes"]

NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")
ALLOWED = 'a lane: text such as "processes workers=4 full=shed", a table, or a LaneConfig'


@dataclass(frozen=True)
class LaneConverter(Converter):
    """A converter whose values have keys: `change(value, key, new)` sets one, `parts` lists their names."""

    change: Callable[..., object] = replace
    parts: tuple[str, ...] = ()


def lane(made: type[Any], kind: str, **defaults: object) -> LaneConverter:
    """Return a converter of lanes.

    A missing key has its value in `defaults`, which apply to this kind only, else the default of the dataclass.
    """

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
        # the kind, then the keys that differ from the dataclass or from the defaults of the kind
        text = _part_text(value, "kind")
        bare = [made(), build([("kind", text)])]
        words = [f"{name}={_part_text(value, name)}" for name in parts[1:] if differs(value, name, bare)]
        return " ".join([text, *words])

    def differs(value: object, name: str, others: list[object]) -> bool:
        return any(getattr(value, name) != getattr(other, name) for other in others)

    parts = tuple(item.name for item in fields(made))
    return LaneConverter(ALLOWED, accept, accept, write, change, parts)


def _words(text: str) -> Iterator[tuple[str, str]]:
    """Yield the pairs of key and text in `processes workers=4`."""
    for place, word in enumerate(text.split()):
        name, equals, value = word.partition("=")
        if equals:
            yield name, value
        elif place == 0:
            yield "kind", word
        else:
            raise InvalidPart("", text, f"the kind, then words key=value ({word!r} is none)")


def _part(made: type[Any], name: str, value: object) -> object:
    """Return the value of one key of a lane, converted from text or from an object."""
    converters: dict[str, Converter] = {item.name: item.metadata["converter"] for item in fields(made)}
    if name not in converters:
        raise InvalidPart(
            name, value, f"a key of a lane{nearest(name, list(converters)) or ': ' + ', '.join(converters)}"
        )
    try:
        return converters[name].parse(value.strip()) if isinstance(value, str) else converters[name].accept(value)
    except (ValueError, TypeError):
        raise InvalidPart(name, value, converters[name].allowed) from None


def _checked(make: Callable[..., object], *args: object, **given: object) -> object:
    """Return `make(...)`; a ValueError of the dataclass becomes an InvalidPart."""
    try:
        return make(*args, **given)
    except ValueError as problem:
        key, value, allowed = (getattr(problem, name) for name in ("key", "value", "allowed"))
        raise InvalidPart(key.partition(".")[2], value, allowed) from None


def _part_text(value: Any, name: str) -> str:
    converter: Converter = next(item.metadata["converter"] for item in fields(value) if item.name == name)
    try:
        return converter.write(getattr(value, name))
    except ValueError:
        raise InvalidPart(name, getattr(value, name), "") from None


def lanes(made: type[Any], reserved: tuple[str, ...]) -> LaneConverter:
    """Return a converter of lanes by name; reserved names are keys of the group itself."""
    one = lane(made, "threads")

    def accept(value: object) -> dict[str, object]:
        if not isinstance(value, Mapping):
            raise ValueError(value)
        return {check_name(name, given): _within(name, given, one.accept, given) for name, given in value.items()}

    def check_name(name: object, given: object) -> str:
        if not isinstance(name, str) or not NAME.fullmatch(name):
            raise InvalidPart(str(name), given, "a name of letters, digits, - and _")
        if name in reserved:
            raise InvalidPart(name, given, f"a name other than {', '.join(reserved)}, which are keys of their own")
        return name

    def parse(text: str) -> dict[str, object]:
        pairs = [pair.partition("=") for pair in text.split(";") if pair.strip()]
        return accept({name.strip(): given.strip() for name, _, given in pairs})

    def write(value: Mapping[str, object]) -> str:
        return "; ".join(f"{name}={_within(name, given, one.write, given)}" for name, given in value.items())

    def change(value: Mapping[str, object], path: str, new: object) -> object:
        name, _, part = path.partition(".")
        check_name(name, new)
        given = _within(name, new, one.change, value.get(name, made()), part, new) if part else new
        return accept({**value, name: given})

    allowed = f'names (not {", ".join(reserved)}), each with a lane (as text: "db=threads workers=8; gpu=processes")'
    return LaneConverter(allowed, accept, parse, write, change)  # type: ignore[arg-type]


def _within(name: str, given: object, act: Callable[..., Any], *args: object) -> Any:
    """Return `act(*args)`; an error in it names the lane `name`."""
    try:
        return act(*args)
    except InvalidPart as bad:
        raise InvalidPart(".".join(filter(None, (name, bad.part))), bad.value, bad.allowed) from None
    except (ValueError, TypeError):
        raise InvalidPart(name, given, ALLOWED) from None
