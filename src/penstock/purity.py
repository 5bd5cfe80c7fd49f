"""Whether native code may be loaded in this process, or Python alone is to run."""

import os
import sys

from penstock.config.converters import BOOL
from penstock.errors import ConfigError

__all__ = ["PURE_VARIABLE", "is_pure_asked", "is_refused"]

PURE_VARIABLE = "PENSTOCK_PURE"


def is_refused() -> bool:
    """Return whether no native code is to be loaded: `PENSTOCK_PURE=1`, or a Python told to run without its GIL.

    A free-threaded Python takes its GIL when it loads the core, which says that it needs one; `PYTHON_GIL=0` and
    `-X gil=0` forbid that, and the core guards nothing by locks. Raises ConfigError.
    """
    return is_pure_asked() or getattr(sys.flags, "gil", None) == 0


def is_pure_asked() -> bool:
    """Return the value of `PENSTOCK_PURE`, any word for yes or no; empty is no. Raises ConfigError."""
    word = os.environ.get(PURE_VARIABLE, "").strip()
    try:
        return bool(word and BOOL.parse(word))
    except ValueError:
        source = f"variable {PURE_VARIABLE}"
        raise ConfigError.bad_value(PURE_VARIABLE, word, source, BOOL.allowed) from None
