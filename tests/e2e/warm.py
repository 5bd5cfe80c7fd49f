"""A process with the command's modules imported; it forks for each command line.

What starts a fresh interpreter for each of some fifty mistakes waits for imports most of the time. A fork has done
nothing but import: its arguments, folder, environment, streams and exit code are those of a process of its own.
"""

import contextlib
import importlib
import json
import os
import runpy
import sys
import tempfile
from typing import Any

__all__: list[str] = []


def become_the_command(order: dict[str, Any], out: int, err: int) -> None:
    """Run the command in this process, as `python -m penstock` does."""
    os.dup2(out, 1)
    os.dup2(err, 2)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.chdir(order["folder"])
    os.environ.clear()
    os.environ.update(order["environment"])
    sys.argv[1:] = order["arguments"]
    sys.path[0] = order["folder"]
    runpy.run_module("penstock", run_name="__main__", alter_sys=True)


def carry_out(order: dict[str, Any]) -> dict[str, Any]:
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        child = os.fork()
        if not child:
            # returns or raises to the interpreter's own end, which makes the exit code
            become_the_command(order, out.fileno(), err.fileno())
            sys.exit()
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        out.seek(0)
        err.seek(0)
        return {"code": code, "out": out.read(), "err": err.read()}


if __name__ == "__main__":
    for name in ("cli.doctor", "cli.run", "cli.serve", "runtime.runner"):
        importlib.import_module(f"penstock.{name}")
    with contextlib.suppress(ImportError):
        importlib.import_module("uvicorn.main")
    for line in sys.stdin:
        print(json.dumps(carry_out(json.loads(line))), flush=True)
