"""The switch between native code and pure Python."""

import os

from penstock.config.converters import BOOL
from penstock.errors import ConfigError

__all__ = ["PURE_VARIABLE", "is_pure_requested"]

PURE_VARIABLE = "PENSTOCK_PURE"


def is_pure_requested() -> bool:
    """Return True if native code must not be loaded: the boolean in `PENSTOCK_PURE`; empty is False.

    Raises ConfigError.
    """
    word = os.environ.get(PURE_VARIABLE, "").strip()
    try:
        return bool(word and BOOL.parse(word))
    except ValueError:
        source = f"variable {PURE_VARIABLE}"
        raise ConfigError.bad_value(PURE_VARIABLE, word, source, BOOL.allowed) from None
