"""The command line: `penstock run`, `serve` and `doctor`. One file per command: parse, call, render.

Knows runtime and integrations; nothing below knows it. A mistake of the user's is one line on stderr, never a
traceback of ours; an error inside the user's program is shown as the user's, without our frames.
"""

from penstock.cli.entry import main

__all__ = ["main"]
