"""The name of the call that blocks a loop: from the stack of its thread, and from the process's audit hook.

The stack shows which C function a frame calls now. The audit hook (`tasks.name_calls`) has seen which call of a
blocking kind began last, also if C code made it. Both give names only, never arguments.
"""

from __future__ import annotations

import ast
import builtins
import dis
import linecache
from functools import lru_cache
from itertools import islice
from types import BuiltinFunctionType, CodeType, ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from types import FrameType

    from penstock._core.tasks.rows import AuditedCall, StallSighting

__all__ = ["CallSite", "call_site", "called_name", "name_call"]

# a call explains a stall of which it takes at least this share
LEAST_SHARE = 0.5
MOST_CHARACTERS = 80
# lines of source that a call expression may span
MOST_LINES = 30
_MODULES = {"builtins": "", "io": "", "posix": "os"}
# Events of calls that block by themselves, as the functions that raise them; other events begin longer operations.
_BLOCK_AT_ONCE = {
    "open": frozenset({"open", "open_code", "FileIO"}),
    "time.sleep": frozenset({"sleep"}),
    "socket.connect": frozenset({"connect", "connect_ex"}),
    "socket.getaddrinfo": frozenset({"getaddrinfo"}),
    "socket.gethostbyname": frozenset({"gethostbyname", "gethostbyname_ex"}),
    "socket.gethostbyaddr": frozenset({"gethostbyaddr", "getfqdn"}),
    "socket.getnameinfo": frozenset({"getnameinfo"}),
    "os.system": frozenset({"system"}),
    "os.listdir": frozenset({"listdir"}),
    "os.scandir": frozenset({"scandir"}),
    "fcntl.flock": frozenset({"flock"}),
    "fcntl.lockf": frozenset({"lockf"}),
}


class CallSite(NamedTuple):
    """The instruction that a frame executes, with the names that it can refer to."""

    code: CodeType
    offset: int
    names: dict[str, Any]


class Called(NamedTuple):
    """The function that a frame calls: its name, and whether it is one of the builtins, which call other functions."""

    name: str
    is_builtin: bool


def call_site(frame: FrameType | None) -> CallSite | None:
    """Return the instruction of a frame. Call it first: the thread continues once it has the GIL."""
    return None if frame is None else CallSite(frame.f_code, frame.f_lasti, frame.f_globals)


def called_name(site: CallSite | None) -> Called | None:
    """Return the C function that the frame calls; None if it calls none or its source cannot be read."""
    words = () if site is None else _called_words(site.code, site.offset)
    if site is None or not words:
        return None
    found = _resolve(words, site.names)
    if not isinstance(found, BuiltinFunctionType) or not isinstance(found.__module__, str):
        is_builtin = found is not None and found is vars(builtins).get(words[-1])
        return Called(".".join(words)[:MOST_CHARACTERS], is_builtin)
    module = found.__module__.lstrip("_")
    module = _MODULES.get(module, module)
    return Called(f"{module}.{found.__name__}" if module else found.__name__, found.__module__ == "builtins")


@lru_cache(maxsize=512)
def _called_words(code: CodeType, offset: int) -> tuple[str, ...]:
    """Return the dotted name in the call expression of an instruction, empty if it is no call of a plain name."""
    if offset < 0 or not dis.opname[code.co_code[offset]].startswith(("CALL", "PRECALL")):
        return ()
    first, last, begin, end = next(islice(code.co_positions(), offset // 2, None), (None,) * 4)
    if first is None or last is None or begin is None or end is None or last - first >= MOST_LINES:
        return ()
    lines = [line.encode() for line in linecache.getlines(code.co_filename)[first - 1 : last]]
    if len(lines) != last - first + 1:
        return ()
    lines[-1] = lines[-1][:end]
    lines[0] = lines[0][begin:]
    return _words_of(b"".join(lines).decode(errors="replace"))


def _words_of(source: str) -> tuple[str, ...]:
    try:
        call = ast.parse(f"({source})", mode="eval").body
    except (SyntaxError, ValueError):
        return ()
    words, node = [], call.func if isinstance(call, ast.Call) else None
    while isinstance(node, ast.Attribute):
        words.append(node.attr)
        node = node.value
    # of a longer expression, such as f(x).result(), the last name is the call that blocks
    if isinstance(node, ast.Name):
        words.append(node.id)
    return tuple(reversed(words))


def _resolve(words: tuple[str, ...], names: dict[str, Any]) -> object:
    """Return the object of a dotted name, through modules only, so that no code of the program runs."""
    found = names.get(words[0], vars(builtins).get(words[0]))
    for word in words[1:]:
        if not isinstance(found, ModuleType):
            return None
        found = vars(found).get(word)
    return found


def name_call(sight: StallSighting, audited: AuditedCall | None, called: Called | None) -> str | None:
    """Return the name of the call that blocks, by the audit event and the called function; None if unknown.

    An event shows only that a call began. It explains the stall if it began early enough, and if the frame is not in
    another call by now.
    """
    if audited is not None and _explains(sight, audited) and not _contradicts(called, audited.event):
        return audited.event
    return None if called is None else called.name


def _explains(sight: StallSighting, audited: AuditedCall) -> bool:
    until_ns = sight.since_ns + sight.lasted_ns
    return audited.first_ns >= sight.since_ns and until_ns - audited.first_ns >= LEAST_SHARE * sight.lasted_ns


def _contradicts(called: Called | None, event: str) -> bool:
    """Return whether the frame calls another function than the one that the event is of."""
    functions = _BLOCK_AT_ONCE.get(event)
    if called is None or called.is_builtin:
        return False
    if functions is None:
        # the event began an operation that has later calls, but a sleep is none of it
        return called.name == "time.sleep"
    return called.name.rpartition(".")[2] not in functions
