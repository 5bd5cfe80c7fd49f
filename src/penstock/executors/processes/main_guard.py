"""A main module that starts workers as it is imported: a worker imports it too, and would start workers of its own.

`multiprocessing` refuses that in the worker, by an error that the program's own code passes on: each worker would print
it, before the parent does. Here the worker ends without a word, and its exit code has the parent say it once.
"""

from __future__ import annotations

import multiprocessing.process
import os

__all__ = ["UNGUARDED_CODE", "UnguardedMain", "end_if_main_is_imported"]

# no shell's, no signal's, none of sysexits.h
UNGUARDED_CODE = 117


class UnguardedMain(RuntimeError):
    """Why no worker of a lane starts: `__main__` runs the program wherever it is imported."""

    def __init__(self) -> None:
        super().__init__(
            "the main module starts the program when a worker imports it: put what starts it, such as "
            "penstock.run(main()), under `if __name__ == '__main__':`"
        )


def end_if_main_is_imported() -> None:
    """End this process if it is a worker of ours, or a forkserver, that is importing the program's main module."""
    process = multiprocessing.process.current_process()
    if getattr(process, "_inheriting", False) and process.name.startswith(("penstock-", "MainProcess")):
        os._exit(UNGUARDED_CODE)
