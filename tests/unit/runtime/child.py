"""Runs a program in a child interpreter and sends it real signals, each when the program says it is ready."""

import os
import signal
import subprocess
import sys
import textwrap
from dataclasses import dataclass

TIMEOUT_S = 20


@dataclass
class Ended:
    returncode: int
    out: str
    err: str


class Child:
    """A running program. `expect` waits for a line it prints; nothing here sleeps."""

    def __init__(self, program, **env):
        self.process = subprocess.Popen(
            [sys.executable, "-W", "error", "-u", "-c", textwrap.dedent(program)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **env},
        )
        self.lines = []

    def __enter__(self):
        return self

    def __exit__(self, *error):
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()

    def expect(self, word):
        for line in self.process.stdout:
            self.lines.append(line)
            if word in line:
                return line.strip()
        raise AssertionError(f"{word!r} never came: {self.lines} {self.process.stderr.read()}")

    def send(self, signum):
        self.process.send_signal(signum)

    def say(self, line):
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()

    def ended(self):
        out, err = self.process.communicate(timeout=TIMEOUT_S)
        return Ended(self.process.returncode, "".join(self.lines) + out, err)


def run(program, *signals, **env):
    """Send each of `signals` when the program has printed another "ready"."""
    with Child(program, **env) as child:
        for signum in signals:
            child.expect("ready")
            child.send(signum)
        return child.ended()


TERM, INT = signal.SIGTERM, signal.SIGINT
