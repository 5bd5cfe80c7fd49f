"""docs/config.md has a line for each key, with its default, its allowed values and its variable."""

import json
import re
from dataclasses import MISSING, Field, fields
from typing import Any

from penstock.config import LaneConfig
from penstock.config.sources import CONVERTERS, GROUPS, PREFIX
from tests.meta.source import ROOT

TEXT = (ROOT / "docs" / "config.md").read_text()
LINE = re.compile(r"^\| `([a-z]+\.[a-z_]+)` \|", re.MULTILINE)
LANE_LINE = re.compile(r"^\| `([a-z_]+)` \|", re.MULTILINE)


def default_of(item: Field[Any]) -> str:
    """Return the default as a file writes it; none where TOML has no value for it."""
    value = item.default_factory() if item.default_factory is not MISSING else item.default
    if isinstance(value, LaneConfig):
        value = item.metadata["converter"].write(value)
    return "none" if value is None else f"`{json.dumps(value)}`"


def beginning(group: str, item: Field[Any]) -> str:
    """Return the begin of a key's line: everything except the meaning."""
    key = f"{group}.{item.name}"
    variable = PREFIX + key.upper().replace(".", "_")
    return f"| `{key}` | {default_of(item)} | {CONVERTERS[key].allowed} | `{variable}` |"


def test_every_key_has_its_line() -> None:
    expected = [beginning(group, item) for group, made in GROUPS.items() for item in fields(made)]
    missing = [line for line in expected if line not in TEXT]
    assert not missing, "docs/config.md should have:\n" + "\n".join(missing)


def test_every_line_is_a_key() -> None:
    assert LINE.findall(TEXT) == list(CONVERTERS)


def test_every_key_of_a_lane_has_its_line() -> None:
    keys = fields(LaneConfig)
    expected = [f"| `{item.name}` | {default_of(item)} | {item.metadata['converter'].allowed} |" for item in keys]
    missing = [line for line in expected if line not in TEXT]
    assert not missing, "docs/config.md should have:\n" + "\n".join(missing)
    assert LANE_LINE.findall(TEXT) == [item.name for item in keys]
