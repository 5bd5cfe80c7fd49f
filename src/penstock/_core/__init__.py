"""The native core, in Cython: what runs once per callback or once per packet. Imports nothing from penstock."""

import os
import sys

__all__ = ["is_refused"]


def is_refused() -> bool:
    """Whether no native code is to be loaded: `PENSTOCK_PURE=1`, or a Python told to run without its GIL.

    A free-threaded Python takes its GIL when it loads the core, which says that it needs one; `PYTHON_GIL=0` and
    `-X gil=0` forbid that, and the core guards nothing by locks.
    """
    return os.environ.get("PENSTOCK_PURE") == "1" or getattr(sys.flags, "gil", None) == 0
