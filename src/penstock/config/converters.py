"""The kinds of value a config key may have: what is accepted from Python, how text is read, how it is written back.

Each kind says in words what it allows; errors quote those words. Knows no key and no source: `config.py` names the
keys, `configfile.py` the sources.
"""

from __future__ import annotations

import concurrent.futures
import math
import os
import signal
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches

__all__ = [
    "BOOL",
    "CALLABLE",
    "DEFAULT_EXECUTOR",
    "EAGER",
    "FACTORY",
    "FOLDER",
    "HANDLERS",
    "HOST",
    "LIMIT",
    "MODULES",
    "PATHS",
    "PORT",
    "REFERENCES",
    "BadPart",
    "Kind",
    "choice",
    "factor",
    "nearest",
    "optional",
    "seconds",
    "signal_number",
    "whole",
    "worker_kind",
]

TRUE_WORDS = ("1", "true", "yes", "on")
FALSE_WORDS = ("0", "false", "no", "off")
NONE_WORDS = ("none", "auto")


class BadPart(ValueError):
    """A part of a value that cannot be used: its own name within the value (`workers`), and what is allowed there."""

    def __init__(self, part: str, value: object, allowed: str) -> None:
        super().__init__(part, value, allowed)
        self.part = part
        self.value = value
        self.allowed = allowed


@dataclass(frozen=True)
class Kind:
    """`accept` returns the value to store or raises ValueError; `parse` does so from text; `write` gives text back."""

    allowed: str
    accept: Callable[[object], object]
    parse: Callable[[str], object]
    write: Callable[[object], str] = str


def nearest(word: str, known: list[str]) -> str:
    """`"; did you mean X?"` for the closest of `known`, or an empty string."""
    found = get_close_matches(word, known, n=1, cutoff=0.6)
    return f"; did you mean {found[0]!r}?" if found else ""


def whole(lowest: int, unit: str, highest: int | None = None) -> Kind:
    """A whole number of `unit`, bounds included."""
    bounds = f"of at least {lowest}" if highest is None else f"from {lowest} to {highest}"

    def accept(value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            raise ValueError(value)
        if value < lowest or (highest is not None and value > highest):
            raise ValueError(value)
        return value

    return Kind(f"a whole number of {unit} {bounds}", accept, lambda text: accept(int(text)))


# Some thirty years. Native code counts in nanoseconds, of which a word holds three hundred years.
LONGEST_S = 1e9


def seconds(*, zero: bool) -> Kind:
    """A time in seconds, kept as a float."""

    def accept(value: object) -> float:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise ValueError(value)
        if not 0 <= value <= LONGEST_S or (value == 0 and not zero):
            raise ValueError(value)
        return float(value)

    bound = "0 to" if zero else "more than 0, at most"
    return Kind(f"a number of seconds, {bound} 1e9", accept, lambda text: accept(float(text)), repr)


def factor(lowest: float) -> Kind:
    """A finite number, kept as a float: how many times something else."""

    def accept(value: object) -> float:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise ValueError(value)
        if not math.isfinite(value) or value < lowest:
            raise ValueError(value)
        return float(value)

    return Kind(f"a number of at least {lowest:g}", accept, lambda text: accept(float(text)), repr)


def choice(*words: str) -> Kind:
    """One of a few words."""

    def accept(value: object) -> str:
        if not isinstance(value, str) or value not in words:
            raise ValueError(value)
        return value

    return Kind("one of " + ", ".join(repr(word) for word in words), accept, accept)


def optional(kind: Kind, meaning: str) -> Kind:
    """The same kind, or None (`none` or `auto` in text)."""

    def accept(value: object) -> object:
        return None if value is None else kind.accept(value)

    def parse(text: str) -> object:
        return None if text.lower() in NONE_WORDS else kind.parse(text)

    def write(value: object) -> str:
        return "none" if value is None else kind.write(value)

    return Kind(f"{kind.allowed}, or none ({meaning})", accept, parse, write)


def _accept_bool(value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError(value)
    return value


def _parse_bool(text: str) -> bool:
    word = text.lower()
    if word in TRUE_WORDS:
        return True
    if word in FALSE_WORDS:
        return False
    raise ValueError(text)


BOOL = Kind("true or false (1/0, yes/no, on/off)", _accept_bool, _parse_bool, lambda value: "1" if value else "0")


def _eager_here(value: bool) -> bool:
    if value and sys.version_info < (3, 12):
        raise ValueError(value)
    return value


EAGER = Kind(
    "true or false (1/0, yes/no, on/off); true needs Python 3.12, whose asyncio has eager tasks",
    lambda value: _eager_here(_accept_bool(value)),
    lambda text: _eager_here(_parse_bool(text)),
    BOOL.write,
)


def _accept_limit(value: object) -> int | str | None:
    if value is None or value == "auto":
        return None if value is None else "auto"
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(value)
    return value


def _parse_limit(text: str) -> int | str | None:
    # "auto" is a value here, where it is a word for None elsewhere
    word = text.lower()
    return _accept_limit(None if word == "none" else word if word == "auto" else int(text))


LIMIT = Kind(
    'a whole number of requests of at least 1, "auto", or none (no gate)',
    _accept_limit,
    _parse_limit,
    lambda value: "none" if value is None else str(value),
)


def _accept_reference(value: object) -> str:
    module, colon, name = value.partition(":") if isinstance(value, str) else ("", "", "")
    parts = [*module.split("."), *name.split(".")]
    if not colon or not all(part.isidentifier() for part in parts):
        raise ValueError(value)
    return f"{module}:{name}"


def _accept_callable(value: object) -> object:
    return value if callable(value) else _accept_reference(value)


def _write_reference(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(value)
    return value


CALLABLE = Kind('a callable, or the text "module:name" of one', _accept_callable, _accept_reference, _write_reference)
FACTORY = optional(CALLABLE, "no factory")


def _accept_folder(value: object) -> str:
    if not isinstance(value, (str, os.PathLike)) or not os.fspath(value):
        raise ValueError(value)
    return os.fsdecode(value)


FOLDER = Kind("the path of a folder", _accept_folder, _accept_folder)


def _accept_host(value: object) -> str:
    if not isinstance(value, str) or not value or any(char.isspace() for char in value):
        raise ValueError(value)
    return value


HOST = Kind("a host's name or address", _accept_host, _accept_host)


def _accept_port(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= 65535:
        raise ValueError(value)
    return value


PORT = Kind("a port from 0 (any free one) to 65535", _accept_port, lambda text: _accept_port(int(text)))


def _each(allowed: str, accept_one: Callable[[object], str]) -> Kind:
    """A tuple of texts; a list will do, and as text they are separated by commas."""

    def accept(value: object) -> tuple[str, ...]:
        if not isinstance(value, (list, tuple)):
            raise ValueError(value)
        return tuple(accept_one(item) for item in value)

    def parse(text: str) -> tuple[str, ...]:
        return accept([item.strip() for item in text.split(",") if item.strip()])

    return Kind(f"{allowed} (as text: separated by commas)", accept, parse, ",".join)  # type: ignore[arg-type]


def _accept_module(value: object) -> str:
    if not isinstance(value, str) or not all(part.isidentifier() for part in value.split(".")):
        raise ValueError(value)
    return value


MODULES = _each("names of modules", _accept_module)
REFERENCES = _each('names "module:name"', _accept_reference)


MOST_PATH_CHARS = 200


def _accept_path(value: object) -> str:
    if not isinstance(value, str) or not value.startswith("/") or len(value) > MOST_PATH_CHARS:
        raise ValueError(value)
    if not all("!" <= char <= "~" and char not in "?#," for char in value):
        raise ValueError(value)
    return value


_PATHS = _each(f"paths of URLs, from / on, at most {MOST_PATH_CHARS} characters each", _accept_path)
# an empty variable counts as unset: a word says that there are none
PATHS = Kind(
    f"{_PATHS.allowed}, or none",
    lambda value: () if value is None else _PATHS.accept(value),
    lambda text: () if text.lower() == "none" else _PATHS.parse(text),
    lambda value: _PATHS.write(value) or "none",
)


def _accept_default(value: object) -> object:
    if isinstance(value, concurrent.futures.Executor):
        return value
    # which lanes there are is known to the whole group only
    if isinstance(value, str) and value and ":" not in value:
        return value
    return _accept_reference(value)


DEFAULT_EXECUTOR = Kind(
    'a lane, a concurrent.futures.Executor, or the text "module:name" of one or of a function that makes one',
    _accept_default,
    _accept_default,
    _write_reference,
)


def _accept_address(text: str) -> str:
    from urllib.parse import urlsplit

    try:
        parts = urlsplit(text)
        complete = parts.hostname and parts.port and text == f"{parts.scheme}://{parts.netloc}"
    except ValueError:
        complete = False
    if not complete:
        raise ValueError(text)
    return text


# Ray finds the cluster of the machine by itself, or starts one.
OWN_CLUSTER = "ray://auto"


def worker_kind(words: tuple[str, ...], schemes: tuple[str, ...]) -> Kind:
    """What runs a lane's jobs: one of a few words, a cluster's address, somebody's executor or what makes one."""

    def accept(value: object) -> object:
        if isinstance(value, concurrent.futures.Executor) or callable(value) or value in words:
            return value
        if isinstance(value, str) and value.startswith(tuple(f"{scheme}:" for scheme in schemes)):
            return value if value == OWN_CLUSTER else _accept_address(value)
        return _accept_reference(value)

    named = ", ".join([*(f'"{word}"' for word in words), *(f'"{scheme}://host:port"' for scheme in schemes)])
    allowed = f'{named}, a concurrent.futures.Executor, or "module:name" of one or of a function that makes one'
    return Kind(allowed, accept, accept, _write_reference)


def signal_number(name: str | int) -> int:
    """The number of `SIGHUP`, `"HUP"` or 1; ValueError when this system has no such signal or it cannot be handled."""
    if isinstance(name, int):
        number = int(signal.Signals(name))
    else:
        word = name.upper() if name.upper().startswith("SIG") else f"SIG{name.upper()}"
        try:
            number = int(signal.Signals[word])
        except KeyError:
            raise ValueError(name) from None
    if number in (signal.SIGKILL, signal.SIGSTOP):
        raise ValueError(name)
    return number


def _accept_handlers(value: object) -> dict[str | int, object]:
    if not isinstance(value, Mapping):
        raise ValueError(value)
    for name in value:
        signal_number(name)
    return {name: _accept_callable(handler) for name, handler in value.items()}


def _parse_handlers(text: str) -> dict[str | int, object]:
    pairs = [pair.partition("=") for pair in text.split(",") if pair.strip()]
    return _accept_handlers({name.strip(): reference.strip() for name, _, reference in pairs})


def _write_handlers(value: object) -> str:
    assert isinstance(value, Mapping)
    return ",".join(f"{signal.Signals(signal_number(n)).name}={_write_reference(h)}" for n, h in value.items())


HANDLERS = Kind(
    'signals this system can handle, each with a callable or "module:name" (as text: "SIGHUP=app:reload,...")',
    _accept_handlers,
    _parse_handlers,
    _write_handlers,
)
