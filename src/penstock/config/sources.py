"""Reads the groups of a config from a TOML file, `PENSTOCK_*` variables and overrides, and writes variables.

Every error names the key, the value, the source and the allowed values.
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from penstock.config.converters import Converter, InvalidPart, nearest
from penstock.config.executors import ExecutorsConfig
from penstock.config.groups import LoopConfig, ServeConfig, SignalsConfig, TasksConfig
from penstock.config.lanes import LaneConverter
from penstock.config.monitor import MonitorConfig
from penstock.config.pressure import PressureConfig
from penstock.config.workers import WorkersConfig
from penstock.errors import ConfigError

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator, Mapping

__all__ = ["CONVERTERS", "find", "load", "named_keys", "to_env"]

PREFIX = "PENSTOCK_"
FILE_VARIABLE = "PENSTOCK_CONFIG"
GROUPS = {
    "loop": LoopConfig,
    "executors": ExecutorsConfig,
    "tasks": TasksConfig,
    "pressure": PressureConfig,
    "signals": SignalsConfig,
    "serve": ServeConfig,
    "workers": WorkersConfig,
    "monitor": MonitorConfig,
}
# dotted key -> its converter
CONVERTERS: dict[str, Converter] = {
    f"{group}.{item.name}": item.metadata["converter"] for group, made in GROUPS.items() for item in fields(made)
}
# keys of former versions -> the instruction in the error
REMOVED = {
    "signals.drain": "set signals.drain_s to the seconds that work in flight gets, or to none for no drain",
    "pressure.hold_s": "set pressure.defer_s, its new name",
    "pressure.drop_left": "set pressure.close_abandoned, its new name",
}
# keys whose value has keys: executors.cpu.workers, executors.lanes.db, executors.lanes.db.workers
LANES = {key: converter for key, converter in CONVERTERS.items() if isinstance(converter, LaneConverter)}

# (dotted key, value, source)
Given = tuple[str, object, str]


def load(
    path: str | os.PathLike[str] | None, env: Mapping[str, str], overrides: Mapping[str, object]
) -> dict[str, Any]:
    """Return the groups by name, as `Config.load` documents."""
    return _build(*_given(path, env, overrides))


def named_keys(
    path: str | os.PathLike[str] | None, env: Mapping[str, str], overrides: Mapping[str, object]
) -> frozenset[str]:
    """Return the dotted keys that any source sets, to `none` too. Raises ConfigError as `load` does."""
    return frozenset(_given(path, env, overrides)[0])


def _given(
    path: str | os.PathLike[str] | None, env: Mapping[str, str], overrides: Mapping[str, object]
) -> tuple[dict[str, object], dict[str, str]]:
    """Return the value of each key that a source sets, and the source."""
    chosen = path if path is not None else env.get(FILE_VARIABLE) or None
    layers = [_from_env(env), ((key, value, f"option {key}") for key, value in overrides.items())]
    if chosen is not None:
        named_by = "" if path is not None else f", named by {FILE_VARIABLE}"
        layers.insert(0, _from_file(Path(chosen), named_by))
    values: dict[str, object] = {}
    sources: dict[str, str] = {}
    for layer in layers:
        # within one source a whole lane goes first, then its single keys
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
            # the group rejects a combination of values, and knows no source
            source = sources.get(".".join(problem.key.split(".")[:2]), problem.source)
            raise ConfigError.bad_value(problem.key, problem.value, source, problem.allowed) from None
    return groups


def _accepted(key: str, value: object, source: str, values: Mapping[str, object]) -> tuple[str, object]:
    """Return the key to set and its value; for a key within a lane, the lane with that key changed."""
    converter = CONVERTERS.get(key)
    parent = ".".join(key.split(".")[:2])
    if key in REMOVED:
        raise _removed(key, value, source)
    if converter is None and parent not in LANES:
        raise _unknown(key, value, source)
    try:
        if converter is None:
            part = key.removeprefix(f"{parent}.")
            group, _, name = parent.partition(".")
            present = values[parent] if parent in values else getattr(GROUPS[group](), name)
            return parent, LANES[parent].change(present, part, value)
        # a TOML string is converted as the same text in a variable or an option
        return key, converter.parse(value.strip()) if isinstance(value, str) else converter.accept(value)
    except InvalidPart as bad:
        named = ".".join(filter(None, (parent, bad.part)))
        raise ConfigError.bad_value(named, bad.value, source, bad.allowed) from None
    except (ValueError, TypeError):
        raise ConfigError.bad_value(key, value, source, CONVERTERS[parent].allowed) from None


def _removed(key: str, value: object, source: str) -> ConfigError:
    message = f"{key} = {value!r} ({source}): this key was removed or renamed: {REMOVED[key]}"
    return ConfigError(message, key=key, value=value, source=source, allowed=REMOVED[key])


def _unknown(key: str, value: object, source: str) -> ConfigError:
    group = key.partition(".")[0]
    if group not in GROUPS:
        hint = nearest(key, list(CONVERTERS)) or nearest(group, list(GROUPS))
        allowed = "a key in the groups " + ", ".join(GROUPS)
    else:
        hint = nearest(key, list(CONVERTERS))
        allowed = ", ".join(known for known in CONVERTERS if known.startswith(f"{group}."))
    message = f"unknown key {key} = {value!r} ({source}){hint}"
    if not hint:
        message += f": allowed is {allowed}"
    return ConfigError(message, key=key, value=value, source=source, allowed=allowed)


def _variable(key: str) -> str:
    return PREFIX + key.upper().replace(".", "_")


VARIABLES = {_variable(key): key for key in CONVERTERS}
VARIABLES |= {
    _variable(f"{key}.{part}"): f"{key}.{part}" for key, converter in LANES.items() for part in converter.parts
}
# Kubernetes and Docker set such variables for a service named penstock-tasks, for example.
SERVICE_VARIABLE = re.compile(r"_SERVICE_(HOST|PORT(_\w+)?)|_PORT(_\d+_(TCP|UDP|SCTP)(_(ADDR|PORT|PROTO))?)?")
REMOVED_VARIABLES = {_variable(key): key for key in REMOVED}


def _from_env(env: Mapping[str, str]) -> Iterator[Given]:
    """Yield the variables of known groups. An empty one counts as unset, as in compose files and unit files."""
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
    allowed = ", ".join(_variable(key) for key in CONVERTERS if key.startswith(f"{group.lower()}."))
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
    """Return the table `[tool.penstock]` if present, else the top level, which in a pyproject.toml is ignored."""
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
    """Return the file that `Config.find` documents."""
    start = start.absolute()
    for folder in (start, *start.parents):
        for candidate in (folder / "penstock.toml", folder / "pyproject.toml"):
            if candidate.is_file() and _has_config(candidate):
                return candidate
    return None


def _has_config(candidate: Path) -> bool:
    if candidate.name == "penstock.toml":
        return True
    try:
        document = _parsed(candidate, "")
    except ConfigError:
        # a broken pyproject.toml counts only if it mentions penstock: `load` then reports the error
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
    for key, converter in CONVERTERS.items():
        group, _, name = key.partition(".")
        value = getattr(getattr(config, group), name)
        if value != getattr(getattr(default, group), name):
            variables[_variable(key)] = _written(key, converter, value)
    return variables


def _written(key: str, converter: Converter, value: object) -> str:
    allowed = 'text such as "module:name" (an object cannot be handed to another process)'
    try:
        return converter.write(value)
    except InvalidPart as bad:
        raise ConfigError.bad_value(f"{key}.{bad.part}", bad.value, "Config.to_env()", allowed) from None
    except ValueError:
        raise ConfigError.bad_value(key, value, "Config.to_env()", allowed) from None
