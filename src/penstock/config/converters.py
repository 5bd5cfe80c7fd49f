"""Converters of config values: from Python objects, from text, and back to text.

Each converter describes the allowed values in words, which error messages quote. It knows no key and no source.
Long, because it has one converter for each kind of value.
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
    "KINDS",
    "LIMIT",
    "MODULES",
    "PATHS",
    "PORT",
    "REFERENCES",
    "Converter",
    "InvalidPart",
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


class InvalidPart(ValueError):
    """An invalid part of a value: its name within the value, such as `workers`, and the allowed values."""

    def __init__(self, part: str, value: object, allowed: str) -> None:
        super().__init__(part, value, allowed)
        self.part = part
        self.value = value
        self.allowed = allowed


@dataclass(frozen=True)
class Converter:
    """The conversion of one key's values.

    `accept` takes an object, `parse` takes text; both return the value to store or raise ValueError. `write` returns
    the value as text.
    """

    allowed: str
    accept: Callable[[object], object]
    parse: Callable[[str], object]
    write: Callable[[object], str] = str


def nearest(word: str, known: list[str]) -> str:
    """Return `"; did you mean X?"` for the closest known word, or an empty string."""
    found = get_close_matches(word, known, n=1, cutoff=0.6)
    return f"; did you mean {found[0]!r}?" if found else ""


def whole(lowest: int, unit: str, highest: int | None = None) -> Converter:
    """Return a converter of whole numbers of `unit`, bounds included."""
    bounds = f"of at least {lowest}" if highest is None else f"from {lowest} to {highest}"

    def accept(value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            raise ValueError(value)
        if value < lowest or (highest is not None and value > highest):
            raise ValueError(value)
        return value

    return Converter(f"a whole number of {unit} {bounds}", accept, lambda text: accept(int(text)))


# About thirty years. Native code counts nanoseconds in 64 bits, which hold about three hundred.
LONGEST_S = 1e9


def seconds(*, zero: bool) -> Converter:
    """Return a converter of seconds, stored as a float."""

    def accept(value: object) -> float:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise ValueError(value)
        if not 0 <= value <= LONGEST_S or (value == 0 and not zero):
            raise ValueError(value)
        return float(value)

    bound = "0 to" if zero else "more than 0, at most"
    return Converter(f"a number of seconds, {bound} 1e9", accept, lambda text: accept(float(text)), repr)


def factor(lowest: float) -> Converter:
    """Return a converter of finite factors, stored as a float."""

    def accept(value: object) -> float:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise ValueError(value)
        if not math.isfinite(value) or value < lowest:
            raise ValueError(value)
        return float(value)

    return Converter(f"a number of at least {lowest:g}", accept, lambda text: accept(float(text)), repr)


def choice(*words: str) -> Converter:
    """Return a converter that allows the given words."""

    def accept(value: object) -> str:
        if not isinstance(value, str) or value not in words:
            raise ValueError(value)
        return value

    return Converter("one of " + ", ".join(repr(word) for word in words), accept, accept)


def optional(converter: Converter, meaning: str) -> Converter:
    """Return `converter` extended by None, which text writes as `none` or `auto`; `meaning` describes None."""

    def accept(value: object) -> object:
        return None if value is None else converter.accept(value)

    def parse(text: str) -> object:
        return None if text.lower() in NONE_WORDS else converter.parse(text)

    def write(value: object) -> str:
        return "none" if value is None else converter.write(value)

    return Converter(f"{converter.allowed}, or none ({meaning})", accept, parse, write)


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


BOOL = Converter("true or false (1/0, yes/no, on/off)", _accept_bool, _parse_bool, lambda value: "1" if value else "0")


def _eager_here(value: bool) -> bool:
    if value and sys.version_info < (3, 12):
        raise ValueError(value)
    return value


EAGER = Converter(
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
    # "auto" is a value here; other keys read it as None
    word = text.lower()
    return _accept_limit(None if word == "none" else word if word == "auto" else int(text))


LIMIT = Converter(
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


CALLABLE = Converter(
    'a callable, or the text "module:name" of one', _accept_callable, _accept_reference, _write_reference
)
FACTORY = optional(CALLABLE, "no factory")


def _accept_folder(value: object) -> str:
    if not isinstance(value, (str, os.PathLike)) or not os.fspath(value):
        raise ValueError(value)
    return os.fsdecode(value)


FOLDER = Converter("the path of a folder", _accept_folder, _accept_folder)


def _accept_host(value: object) -> str:
    if not isinstance(value, str) or not value or any(char.isspace() for char in value):
        raise ValueError(value)
    return value


HOST = Converter("a host's name or address", _accept_host, _accept_host)


def _accept_port(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= 65535:
        raise ValueError(value)
    return value


PORT = Converter("a port from 0 (any free one) to 65535", _accept_port, lambda text: _accept_port(int(text)))


def _accept_host_and_port(value: object) -> str:
    if not isinstance(value, str) or value != value.strip():
        raise ValueError(value)
    host, colon, port = value.rpartition(":")
    is_bare = ":" in host and not (host.startswith("[") and host.endswith("]"))
    if not colon or not host or is_bare or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ValueError(value)
    return value


HOST_AND_PORT = Converter("HOST:PORT, such as 127.0.0.1:8700 or [::1]:0", _accept_host_and_port, _accept_host_and_port)
LEAST_TOKEN_CHARS = 16


def _accept_token(value: object) -> str:
    is_text = isinstance(value, str) and value.isascii() and value.isprintable() and " " not in value
    if not is_text or len(str(value)) < LEAST_TOKEN_CHARS:
        # the value is a secret: an error must not show it
        raise ValueError("a token")
    return str(value)


TOKEN = Converter(f"at least {LEAST_TOKEN_CHARS} printable ASCII characters", _accept_token, _accept_token)


def _each(allowed: str, accept_one: Callable[[object], str]) -> Converter:
    """Return a converter of tuples of text; it also takes a list, or text separated by commas."""

    def accept(value: object) -> tuple[str, ...]:
        if not isinstance(value, (list, tuple)):
            raise ValueError(value)
        return tuple(accept_one(item) for item in value)

    def parse(text: str) -> tuple[str, ...]:
        return accept([item.strip() for item in text.split(",") if item.strip()])

    return Converter(f"{allowed} (as text: separated by commas)", accept, parse, ",".join)  # type: ignore[arg-type]


def _accept_module(value: object) -> str:
    if not isinstance(value, str) or not all(part.isidentifier() for part in value.split(".")):
        raise ValueError(value)
    return value


MODULES = _each("names of modules", _accept_module)


# the kinds of `penstock.tasks.Finding`
FINDING_KINDS = (
    "stall",
    "stuck",
    "await_cycle",
    "hung",
    "growing",
    "destroyed_pending",
    "exception_unretrieved",
    "never_awaited",
    "loop_closed",
    "failed",
)


def _accept_kind(value: object) -> str:
    if not isinstance(value, str) or value not in FINDING_KINDS:
        raise ValueError(value)
    return value


_KINDS = _each("at least one of the kinds " + ", ".join(FINDING_KINDS), _accept_kind)


def _some_kinds(kinds: object) -> object:
    if not kinds:
        # as text, no kinds would be the default
        raise ValueError(kinds)
    return kinds


KINDS = Converter(
    _KINDS.allowed,
    lambda value: _some_kinds(_KINDS.accept(value)),
    lambda text: _some_kinds(_KINDS.parse(text)),
    _KINDS.write,
)
REFERENCES = _each('names "module:name"', _accept_reference)


MOST_PATH_CHARS = 200


def _accept_path(value: object) -> str:
    if not isinstance(value, str) or not value.startswith("/") or len(value) > MOST_PATH_CHARS:
        raise ValueError(value)
    if not all("!" <= char <= "~" and char not in "?#," for char in value):
        raise ValueError(value)
    return value


_PATHS = _each(f"paths of URLs, from / on, at most {MOST_PATH_CHARS} characters each", _accept_path)
# An empty variable counts as unset, so an empty tuple is written as `none`.
PATHS = Converter(
    f"{_PATHS.allowed}, or none",
    lambda value: () if value is None else _PATHS.accept(value),
    lambda text: () if text.lower() == "none" else _PATHS.parse(text),
    lambda value: _PATHS.write(value) or "none",
)


def _accept_default(value: object) -> object:
    if isinstance(value, concurrent.futures.Executor):
        return value
    # only the group knows the declared lanes
    if isinstance(value, str) and value and ":" not in value:
        return value
    return _accept_reference(value)


DEFAULT_EXECUTOR = Converter(
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


# Ray finds the machine's cluster, or starts one.
OWN_CLUSTER = "ray://auto"


def worker_kind(words: tuple[str, ...], schemes: tuple[str, ...]) -> Converter:
    """Return a converter of worker kinds: a word, a cluster's address, an executor, or a function that makes one."""

    def accept(value: object) -> object:
        if isinstance(value, concurrent.futures.Executor) or callable(value) or value in words:
            return value
        if isinstance(value, str) and value.startswith(tuple(f"{scheme}:" for scheme in schemes)):
            return value if value == OWN_CLUSTER else _accept_address(value)
        return _accept_reference(value)

    named = ", ".join([*(f'"{word}"' for word in words), *(f'"{scheme}://host:port"' for scheme in schemes)])
    allowed = f'{named}, a concurrent.futures.Executor, or "module:name" of one or of a function that makes one'
    return Converter(allowed, accept, accept, _write_reference)


def signal_number(name: str | int) -> int:
    """Return the number of a signal given as `"SIGHUP"`, `"HUP"` or 1.

    Raises ValueError if the system has no such signal, or if it cannot be handled.
    """
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


HANDLERS = Converter(
    'signals this system can handle, each with a callable or "module:name" (as text: "SIGHUP=app:reload,...")',
    _accept_handlers,
    _parse_handlers,
    _write_handlers,
)
