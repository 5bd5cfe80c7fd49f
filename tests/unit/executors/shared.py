"""The common parts of the tests of process lanes."""

import asyncio
import os
import pathlib


def is_zombie(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().split(") ")[1][0] == "Z"
    except OSError:
        return True


def call(loop, lane, fn, *args, **options):
    return lane.call(loop, fn, args, options.pop("kwargs", None), **options)


# in which processes start on a busy machine
PATIENCE_S = 50


def run(loop, work, patience_s=PATIENCE_S):
    return loop.run_until_complete(asyncio.wait_for(work, patience_s))


def lines(path):
    return path.read_text().split() if path.exists() else []


def children(of=None):
    """The processes below this one, or below `of`, by pid, zombies among them."""
    found = {}
    for entry in pathlib.Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rsplit(") ", 1)[1].split()
            except OSError:
                continue
            found[int(entry.name)] = (int(fields[1]), fields[0])
    below, ours = {of or os.getpid()}, {}
    while fresh := {pid for pid, (parent, _) in found.items() if parent in below} - below:
        below |= fresh
        ours |= {pid: found[pid][1] for pid in fresh}
    return ours
