"""Reads a config from its sources: a TOML file, `PENSTOCK_*` variables, overrides; and writes it back as variables.

Every error names the key, the value, the source and what is allowed. What the keys are is `config.py`'s part.
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from penstock.config.converters import BadPart, Kind, nearest
from penstock.config.executors import ExecutorsConfig
from penstock.config.groups import LoopConfig, ServeConfig, SignalsConfig, TasksConfig
from penstock.config.lanes import LaneKind
from penstock.config.pressure import PressureConfig
from penstock.errors import ConfigError

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator, Mapping

__all__ = ["KINDS", "find", "load", "named_keys", "to_env"]

PREFIX = "PENSTOCK_"
FILE_VARIABLE = "PENSTOCK_CONFIG"
GROUPS = {
    "loop": LoopConfig,
    "executors": ExecutorsConfig,
    "tasks": TasksConfig,
    "pressure": PressureConfig,
    "signals": SignalsConfig,
    "serve": ServeConfig,
}
# dotted key -> its kind, for every key there is
KINDS: dict[str, Kind] = {
    f"{group}.{item.name}": item.metadata["kind"] for group, made in GROUPS.items() for item in fields(made)
}
# keys of former versions -> what is said now
REMOVED = {"signals.drain": "set signals.drain_s to the seconds that work in flight gets, or to none for no drain"}
# keys whose value has keys of its own: executors.cpu.workers, executors.lanes.db, executors.lanes.db.workers
LANES = {key: kind for key, kind in KINDS.items() if isinstance(kind, LaneKind)}

# (dotted key, value, where it came from)
Given = tuple[str, object, str]


def load(
    path: str | os.PathLike[str] | None, env: Mapping[str, str], overrides: Mapping[str, object]
) -> dict[str, Any]:
    """Return the groups by name, as `Config.load` documents."""
    return _build(*_given(path, env, overrides))


def named_keys(
    path: str | os.PathLike[str] | None, env: Mapping[str, str], overrides: Mapping[str, object]
) -> frozenset[str]:
    """The dotted keys that any source names, whatever the value: `none` is a value too. Raises as `load` does."""
    return frozenset(_given(path, env, overrides)[0])


def _given(
    path: str | os.PathLike[str] | None, env: Mapping[str, str], overrides: Mapping[str, object]
) -> tuple[dict[str, object], dict[str, str]]:
    """The value of each key that is given, and where it comes from."""
    chosen = path if path is not None else env.get(FILE_VARIABLE) or None
    layers = [_from_env(env), ((key, value, f"option {key}") for key, value in overrides.items())]
    if chosen is not None:
        named_by = "" if path is not None else f", named by {FILE_VARIABLE}"
        layers.insert(0, _from_file(Path(chosen), named_by))
    values: dict[str, object] = {}
    sources: dict[str, str] = {}
    for layer in layers:
        # a lane as a whole, then single keys of it: those of one source go on top of each other
        for key, value, source in sorted(layer, key=lambda given: given[0].count(".")):
            whole, made = _accepted(key, value, source, values)
            values[whole], sources[whole] = made, source
    return values, sources


def _build(values: Mapping[str, object], sources: Mapping[str, str]) -> dict[str, Any]:
    groups: dict[str, Any] = {}
    for name, made in GROUPS.items():
        given = {key.partition(".")[2]: value for key, value in values.items() if key.startswith(f"{name}.")}
        try:
            groups[name] = made(**given)
        except ConfigError as problem:
            # values that do not go together: told by the group, which knows no sources
            source = sources.get(".".join(problem.key.split(".")[:2]), problem.source)
            raise ConfigError.bad_value(problem.key, problem.value, source, problem.allowed) from None
    return groups


def _accepted(key: str, value: object, source: str, values: Mapping[str, object]) -> tuple[str, object]:
    """The key to set and its value; for a key within a lane, that lane with the key changed."""
    kind = KINDS.get(key)
    parent = ".".join(key.split(".")[:2])
    if key in REMOVED:
        raise _removed(key, value, source)
    if kind is None and parent not in LANES:
        raise _unknown(key, value, source)
    try:
        if kind is None:
            part = key.removeprefix(f"{parent}.")
            group, _, name = parent.partition(".")
            present = values[parent] if parent in values else getattr(GROUPS[group](), name)
            return parent, LANES[parent].change(present, part, value)
        # text is text in a variable or an option; a TOML string reads as the same text would
        return key, kind.parse(value.strip()) if isinstance(value, str) else kind.accept(value)
    except BadPart as bad:
        named = ".".join(filter(None, (parent, bad.part)))
        raise ConfigError.bad_value(named, bad.value, source, bad.allowed) from None
    except (ValueError, TypeError):
        raise ConfigError.bad_value(key, value, source, KINDS[parent].allowed) from None


def _removed(key: str, value: object, source: str) -> ConfigError:
    message = f"{key} = {value!r} ({source}): there is no such key any more, {REMOVED[key]}"
    return ConfigError(message, key=key, value=value, source=source, allowed=REMOVED[key])


def _unknown(key: str, value: object, source: str) -> ConfigError:
    group = key.partition(".")[0]
    if group not in GROUPS:
        hint = nearest(key, list(KINDS)) or nearest(group, list(GROUPS))
        allowed = "a key in the groups " + ", ".join(GROUPS)
    else:
        hint = nearest(key, list(KINDS))
        allowed = ", ".join(known for known in KINDS if known.startswith(f"{group}."))
    message = f"unknown key {key} = {value!r} ({source}){hint}"
    if not hint:
        message += f": allowed is {allowed}"
    return ConfigError(message, key=key, value=value, source=source, allowed=allowed)


def _variable(key: str) -> str:
    return PREFIX + key.upper().replace(".", "_")


VARIABLES = {_variable(key): key for key in KINDS}
VARIABLES |= {_variable(f"{key}.{part}"): f"{key}.{part}" for key, kind in LANES.items() for part in kind.parts}
# What Kubernetes and Docker give each container for a service named penstock-tasks, say: of a known group by its name.
SERVICE_VARIABLE = re.compile(r"_SERVICE_(HOST|PORT(_\w+)?)|_PORT(_\d+_(TCP|UDP|SCTP)(_(ADDR|PORT|PROTO))?)?")
REMOVED_VARIABLES = {_variable(key): key for key in REMOVED}


def _from_env(env: Mapping[str, str]) -> Iterator[Given]:
    """Variables of a known group; an empty one counts as unset, as compose files and unit files write it."""
    for variable in sorted(env):
        group, underscore, _ = variable.removeprefix(PREFIX).lower().partition("_")
        if variable.startswith(PREFIX) and underscore and group in GROUPS and env[variable].strip():
            key = VARIABLES.get(variable) or REMOVED_VARIABLES.get(variable)
            if key is None and SERVICE_VARIABLE.fullmatch(variable.removeprefix(f"{PREFIX}{group.upper()}")):
                continue
            if key is None:
                raise _unknown_variable(variable, env[variable])
            yield key, env[variable], f"variable {variable}"


def _unknown_variable(variable: str, value: str) -> ConfigError:
    group = variable.removeprefix(PREFIX).partition("_")[0]
    allowed = ", ".join(_variable(key) for key in KINDS if key.startswith(f"{group.lower()}."))
    hint = nearest(variable, list(VARIABLES)) or f": allowed is {allowed}"
    message = f"unknown variable {variable} = {value!r}{hint}"
    return ConfigError(message, key=variable, value=value, source=f"variable {variable}", allowed=allowed)


def _from_file(path: Path, named_by: str) -> Iterator[Given]:
    for group, keys in _table(_parsed(path, named_by), path).items():
        if group in GROUPS and not isinstance(keys, dict):
            raise ConfigError.bad_value(group, keys, f"file {path}", f"a table, as [{group}]")
        if group not in GROUPS:
            raise _unknown(group, keys, f"file {path}")
        for key, value in keys.items():
            yield f"{group}.{key}", value, f"file {path}"


def _parsed(path: Path, named_by: str) -> dict[str, Any]:
    try:
        with path.open("rb") as stream:
            return tomllib.load(stream)
    except OSError as problem:
        raise ConfigError(f"config file {path}{named_by}: {problem.strerror or problem}", source=str(path)) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as problem:
        raise ConfigError(f"config file {path}{named_by} is not TOML: {problem}", source=str(path)) from None


def _table(document: dict[str, Any], path: Path) -> dict[str, Any]:
    """`[tool.penstock]` where there is one; the top level of any file but a pyproject.toml otherwise."""
    tool = document.get("tool")
    table = tool.get("penstock") if isinstance(tool, dict) else None
    if table is None:
        table = {} if path.name == "pyproject.toml" else document
    if not isinstance(table, dict):
        raise ConfigError.bad_value(
            "tool.penstock", table, f"file {path}", "a table of the groups " + ", ".join(GROUPS)
        )
    return table


def find(start: Path) -> Path | None:
    """The file that `Config.find` promises."""
    start = start.absolute()
    for folder in (start, *start.parents):
        for candidate in (folder / "penstock.toml", folder / "pyproject.toml"):
            if candidate.is_file() and _is_ours(candidate):
                return candidate
    return None


def _is_ours(candidate: Path) -> bool:
    if candidate.name == "penstock.toml":
        return True
    try:
        document = _parsed(candidate, "")
    except ConfigError:
        # someone else's broken or unreadable pyproject.toml, unless it speaks of us: then `load` tells what is wrong
        return b"[tool.penstock" in _bytes_of(candidate)
    return isinstance(document.get("tool"), dict) and "penstock" in document["tool"]


def _bytes_of(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def to_env(config: object, default: object) -> dict[str, str]:
    """Return the variables of `Config.to_env`: those of the keys whose value is not the default one."""
    variables = {}
    for key, kind in KINDS.items():
        group, _, name = key.partition(".")
        value = getattr(getattr(config, group), name)
        if value != getattr(getattr(default, group), name):
            variables[_variable(key)] = _written(key, kind, value)
    return variables


def _written(key: str, kind: Kind, value: object) -> str:
    allowed = 'text such as "module:name" (an object cannot be handed to another process)'
    try:
        return kind.write(value)
    except BadPart as bad:
        raise ConfigError.bad_value(f"{key}.{bad.part}", bad.value, "Config.to_env()", allowed) from None
    except ValueError:
        raise ConfigError.bad_value(key, value, "Config.to_env()", allowed) from None
