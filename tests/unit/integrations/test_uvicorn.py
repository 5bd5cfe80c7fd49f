"""The config of worker processes, and the protocols that it loads."""

import asyncio
import os
import socket
import subprocess
import sys
from typing import Any

import pytest

pytest.importorskip("uvicorn")

import uvicorn

import penstock
from penstock import Config, LoopConfig
from penstock.errors import ConfigError
from penstock.integrations.uvicorn.loading import ServingConfig
from penstock.loop import NATIVE
from tests.unit.integrations.asgi_driven import answer


def test_a_default_reaches_the_children_although_a_variable_said_otherwise() -> None:
    environ = {"PENSTOCK_LOOP_SPIN_US": "50", "PENSTOCK_CONFIG": "x.toml", "PENSTOCK_PURE": "1", "PATH": "/bin"}
    exported = Config(loop=LoopConfig(accept_batch=7)).exported(environ)
    assert exported == {"PENSTOCK_LOOP_ACCEPT_BATCH": "7", "PENSTOCK_PURE": "1", "PATH": "/bin"}


@pytest.mark.parametrize("receive_s", [None, "2.5"])
@pytest.mark.parametrize("http", ["httptools", "h11"])
def test_uvicorns_protocol_is_its_own_unless_requests_are_to_come_in_time(
    monkeypatch: pytest.MonkeyPatch, receive_s: str | None, http: str
) -> None:
    pytest.importorskip(http)
    if receive_s is not None:
        monkeypatch.setenv("PENSTOCK_PRESSURE_RECEIVE_S", receive_s)

    async def app(scope: object, receive: object, send: object) -> None:
        """Do nothing; it is never called."""

    config = ServingConfig(app, http=http)
    config.load()
    watches = "Receiving" in [kind.__name__ for kind in config.http_protocol_class.__mro__]  # type: ignore[union-attr]
    assert watches == (receive_s is not None)


@pytest.mark.skipif(not NATIVE, reason="the pure loop sends each write by itself")
@pytest.mark.parametrize("http", ["httptools", "h11"])
def test_a_header_and_its_body_are_one_system_call_under_penstock_serve(http: str) -> None:
    pytest.importorskip(http)
    # keeps the bounds of messages: each system call that sends is one
    ours, peer = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setblocking(False)
    peer.setblocking(False)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await answer(send)

    async def main() -> bytes:
        loop: Any = asyncio.get_running_loop()
        config = ServingConfig(app, http=http, lifespan="off", access_log=False)
        config.load()
        state = uvicorn.server.ServerState()
        make: Any = config.http_protocol_class
        transport = loop._make_socket_transport(ours, make(config, state, {}))
        await loop.sock_sendall(peer, b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        message: bytes = await loop.sock_recv(peer, 9999)
        transport.abort()
        return message

    with peer, asyncio.Runner(loop_factory=penstock.EventLoop) as runner:
        message = runner.run(main())
    assert message.startswith(b"HTTP/1.1 200") and b"done" in message


BY_OBJECT = """
import asyncio, os, signal, threading
from concurrent.futures import ThreadPoolExecutor
from penstock import Config, ExecutorsConfig, LaneConfig, TasksConfig, offload
from penstock.integrations.uvicorn import Binding, serve

made = []

def factory(loop, coro, make, **options):
    made.append(coro)
    return make(loop, coro, **options)

async def app(scope, receive, send):
    await receive()
    name = await offload.options(lane="own")(lambda: threading.current_thread().name)
    print(len(made) > 0, name, [key for key in os.environ if key.startswith("PENSTOCK_") and key != "PENSTOCK_PURE"])
    await send({"type": "lifespan.startup.complete"})
    os.kill(os.getpid(), signal.SIGTERM)
    await receive()
    await send({"type": "lifespan.shutdown.complete"})

pool = ThreadPoolExecutor(1, thread_name_prefix="a-pool")
config = Config(tasks=TasksConfig(factory=factory), executors=ExecutorsConfig(lanes={"own": LaneConfig(pool)}))
raise SystemExit(serve(app, [Binding(port=0)], config, lifespan="on"))
"""


def test_one_process_serves_by_a_config_whose_values_have_no_text() -> None:
    environ = {name: text for name, text in os.environ.items() if not name.startswith("PENSTOCK_") or "PURE" in name}
    command = [sys.executable, "-c", BY_OBJECT]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (128 + 15, "True a-pool_0 []\n"), done.stderr


def test_a_config_whose_values_have_no_text_leaves_the_environment_as_it_was() -> None:
    environ = {"PENSTOCK_LOOP_SPIN_US": "50"}
    with pytest.raises(ConfigError, match=r"tasks\.factory"):
        Config(tasks=penstock.TasksConfig(factory=lambda *a, **k: None)).exported(environ)
    assert environ == {"PENSTOCK_LOOP_SPIN_US": "50"}
