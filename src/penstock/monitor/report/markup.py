"""HTML and SVG in which all text is escaped: only a `Markup` is inserted as it is."""

from __future__ import annotations

import html
import re
from typing import TypeAlias

__all__ = ["Child", "Markup", "joined", "tag", "text"]

# a name of a task or of a place; longer text is cut
MOST_CHARS = 400
# characters that HTML does not allow
CONTROLS = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
VOID = frozenset({"br", "meta", "rect", "line", "path", "circle"})


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


Child: TypeAlias = "str | int | float | None"


def text(value: object, most_chars: int = MOST_CHARS) -> Markup:
    """Return any value as escaped text, cut after `most_chars` characters."""
    if isinstance(value, Markup):
        return value
    plain = CONTROLS.sub("\N{REPLACEMENT CHARACTER}", str(value))
    if len(plain) > most_chars:
        plain = f"{plain[:most_chars]}\N{HORIZONTAL ELLIPSIS}"
    return Markup(html.escape(plain))


def tag(name: str, /, *children: Child, **attributes: Child) -> Markup:
    """Return an element. An attribute's underscores are hyphens, a trailing one is dropped; None leaves it out."""
    shown = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{text(value)}"'
        for key, value in attributes.items()
        if value is not None
    )
    if name in VOID and not children:
        return Markup(f"<{name}{shown}>" if name in ("br", "meta") else f"<{name}{shown}/>")
    return Markup(f"<{name}{shown}>{joined(*children)}</{name}>")


def joined(*children: Child) -> Markup:
    """Return the children after each other, without None."""
    return Markup("".join(text(child) for child in children if child is not None))
