"""A service of a supervisor in a process of its own: `python -m tests.unit.runtime.supervisor.service JSON`.

The parent is a process of its own because a supervisor reaps every child of its process. Commands come as lines on
stdin, answers leave as lines on stdout, records of logging on stderr.
"""

import json
import logging
import os
import socket
import sys
import threading
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from penstock.runtime.supervisor.fleet import FleetOptions
from penstock.runtime.supervisor.recycling import RecycleBounds
from penstock.runtime.supervisor.supervisor import Supervisor, SupervisorOptions
from penstock.runtime.supervisor.worker.orders import Orders

PROGRAM = "tests.unit.runtime.supervisor.programs:answer"
PRELOAD = "tests.unit.runtime.supervisor.programs:preload"


def make_orders(settings: Path) -> Orders:
    """Read the settings of a generation, as a reload does."""
    payload = json.loads(settings.read_text())
    if payload.get("refused"):
        raise ValueError("bad settings")
    environ = {**os.environ, "SAID": payload.get("said", "")}
    return Orders(PROGRAM, payload, environ, tuple(sys.path), PRELOAD if payload.get("preloads") else None)


def obey(supervisor: Supervisor) -> None:
    # past the buffer of sys.stdin, whose lock a thread must not hold at the end
    for line in os.fdopen(0, closefd=False):
        command, *arguments = line.split()
        future: Future[Any]
        if command == "rows":
            future = supervisor.call(supervisor.rows)
        elif command == "scale":
            future = supervisor.call(lambda count=int(arguments[0]): supervisor.scale(count))
        elif command == "reload":
            future = supervisor.call(supervisor.reload).result()
        else:
            future = supervisor.call(supervisor.stop)
        print(json.dumps(future.result()), flush=True)


def main(text: str) -> int:
    options = json.loads(text)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    listener = socket.create_server(("127.0.0.1", 0))
    recycling = RecycleBounds(**options.pop("recycling", {}))
    count, settings = options.pop("count", 2), Path(options.pop("settings"))
    delay_s = options.pop("drain_delay_s", 0.0)
    supervisor = Supervisor(
        SupervisorOptions(count, 8, FleetOptions(recycling=recycling, **options), delay_s),
        lambda: make_orders(settings),
        [listener],
        logger=logging.getLogger("service"),
    )
    print(json.dumps(listener.getsockname()), flush=True)
    threading.Thread(target=obey, args=(supervisor,), daemon=True).start()
    return supervisor.run()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
