"""Programs of workers in tests: they answer each client with their process and generation."""

import os
import select
import socket
import time
from typing import Any

from penstock.runtime.supervisor.worker.link import WorkerLink

preloaded_in: list[int] = []


def answer(link: WorkerLink, payload: dict[str, Any]) -> int:
    """Answer clients until the worker is drained. The payload may say that the start fails, hangs or crashes."""
    if payload.get("fails"):
        link.failed("no database", 3, "Traceback")
        return 3
    if payload.get("crashes"):
        os.abort()
    while os.path.exists(payload.get("waits_for", "")):
        time.sleep(0.01)
    reader, writer = os.pipe()
    link.serve_drains(lambda drain_s, is_orphan: os.write(writer, b"\0"))
    (listener,) = link.listeners
    listener.listen()
    listener.setblocking(False)
    link.started()
    said = f"{os.getpid()} {link.orders.generation} {link.number} {os.environ.get('SAID', '')} {preloaded_in}"
    poll = select.poll()
    poll.register(reader, select.POLLIN)
    poll.register(listener, select.POLLIN)
    while True:
        ready = [number for number, _ in poll.poll()]
        if listener.fileno() in ready:
            try:
                client, _ = listener.accept()
            except BlockingIOError:
                continue
            with client:
                client.sendall(said.encode())
        elif reader in ready:
            return 0


def preload(payload: dict[str, Any]) -> None:
    if payload.get("preload_fails"):
        raise RuntimeError("no memory")
    preloaded_in.append(os.getpid())


def ask(listener: socket.socket) -> list[str]:
    """Return the answer of a worker: its process, generation, number and more."""
    with socket.create_connection(listener.getsockname(), timeout=60) as client:
        return client.makefile().read().split(" ", 4)
