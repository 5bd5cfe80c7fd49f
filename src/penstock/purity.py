"""The switch between native code and pure Python."""

import os
import sys

from penstock.config.converters import BOOL
from penstock.errors import ConfigError

__all__ = ["PURE_VARIABLE", "is_native_disabled", "is_pure_requested"]

PURE_VARIABLE = "PENSTOCK_PURE"


def is_native_disabled() -> bool:
    """Return True if native code must not be loaded: `PENSTOCK_PURE=1`, or a Python forced to run without its GIL.

    A free-threaded Python enables its GIL when it loads the core, which requires one. `PYTHON_GIL=0` and `-X gil=0`
    forbid that, and the core has no locks. Raises ConfigError.
    """
    return is_pure_requested() or getattr(sys.flags, "gil", None) == 0


def is_pure_requested() -> bool:
    """Return the boolean in the variable `PENSTOCK_PURE`; empty is False. Raises ConfigError."""
    word = os.environ.get(PURE_VARIABLE, "").strip()
    try:
        return bool(word and BOOL.parse(word))
    except ValueError:
        source = f"variable {PURE_VARIABLE}"
        raise ConfigError.bad_value(PURE_VARIABLE, word, source, BOOL.allowed) from None
