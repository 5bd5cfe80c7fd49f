"""The messages of the attach socket: a line of JSON, its version, and the arguments of its command."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["VERSION", "BadMessage", "LaterAnswer", "parse_line", "seconds", "whole", "word"]

VERSION = 1
# of a value that an error quotes
MOST_CHARS = 40


class BadMessage(ValueError):
    """A message that cannot be answered. Its text goes to the client."""


def parse_line(line: bytes) -> dict[str, Any]:
    """Return the message in a line. Raises BadMessage for anything but a message of this version."""
    try:
        message = json.loads(line)
    except (ValueError, RecursionError):
        raise BadMessage("not a JSON line") from None
    if not isinstance(message, dict):
        raise BadMessage("a message is a JSON object")
    version = message.get("version")
    if version != VERSION or isinstance(version, bool):
        raise BadMessage(f"version {_quoted(version)} is not known here, {VERSION} is")
    if not isinstance(message.get("command"), str):
        raise BadMessage("a message has a command")
    return message


def whole(message: Mapping[str, Any], name: str, default: int | None, lowest: int, highest: int) -> int:
    """Return a whole number of a message. Raises BadMessage for any other value, and for none without a default."""
    value = message.get(name, default)
    if not isinstance(value, int) or isinstance(value, bool) or not lowest <= value <= highest:
        raise BadMessage(f"{name} = {_quoted(value)}: a whole number from {lowest} to {highest} is needed")
    return value


def seconds(message: Mapping[str, Any], name: str, default_s: float, highest_s: float) -> float:
    """Return a time of a message in seconds. Raises BadMessage for any other value."""
    value = message.get(name, default_s)
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= highest_s:
        raise BadMessage(f"{name} = {_quoted(value)}: seconds from 0 to {highest_s:g} are needed")
    return float(value)


def word(message: Mapping[str, Any], name: str, default: str | None, known: tuple[str, ...]) -> str:
    """Return one of the known words. Raises BadMessage for any other value."""
    value = message.get(name, default)
    if not isinstance(value, str) or value not in known:
        raise BadMessage(f"{name} = {_quoted(value)}: {', '.join(known)} are known")
    return value


def _quoted(value: object) -> str:
    return json.dumps(value, default=str)[:MOST_CHARS]


class LaterAnswer:
    """An answer that takes time. The answering thread asks for it repeatedly."""

    def poll(self) -> Mapping[str, Any] | None:
        """Return the answer; None if it is not ready."""
        raise NotImplementedError

    def end(self) -> None:
        """Clean up: it is answered, or the client is gone."""
