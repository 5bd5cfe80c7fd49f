"""The command line: `penstock run`, `serve` and `doctor`. One file per command: parse, call, render.

A usage error is one line on stderr without a traceback. An error in the user's program shows its traceback without
penstock's frames.
"""

from penstock.cli.entry import main

__all__ = ["main"]
