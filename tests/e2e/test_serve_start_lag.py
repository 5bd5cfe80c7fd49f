"""A start of `penstock serve` that blocks the loop: no client waits yet, so it is neither overload nor a stall."""

import signal

import pytest

from penstock.loop import NATIVE
from tests.e2e.conftest import Command, answers, get, wait_for

pytest.importorskip("uvicorn")

# The startup blocks for 1.5 s in one turn. The average wait is kept over seconds, so a late look finds it as well.
APP = """
import asyncio, time
from penstock.pressure import loop_statistics
async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        for _ in range(3):
            asyncio.get_running_loop().call_soon(time.sleep, 0.5)
        await asyncio.sleep(0)
        await send({"type": "lifespan.startup.complete"})
        return
    found = loop_statistics()
    text = f"{found.state} {found.lag_s:.3f}".encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(text))]})
    await send({"type": "http.response.body", "body": text})
"""


@pytest.mark.skipif(not NATIVE, reason="only the native loop measures its lag")
def test_a_start_that_blocks_the_loop_is_no_overload(penstock: Command, free_port: int) -> None:
    penstock.write("shop.py", APP)
    address = ("127.0.0.1", free_port)
    server = penstock.start(
        "serve", "shop:app", "--port", str(free_port), "--limit", "auto", "--set", "pressure.lag_for_s=5"
    )
    wait_for(lambda: answers(address), server)
    state, lag_s = get(address).rpartition(b"\r\n\r\n")[2].split()
    assert state != b"off"
    # a busy machine may add some
    assert float(lag_s) < 0.4


SLOW_IMPORT = "import time\ntime.sleep(0.6)\n"


@pytest.mark.skipif(not NATIVE, reason="the pure loop sees no stalls")
def test_an_application_that_a_worker_imports_slowly_is_no_stall(penstock: Command, free_port: int) -> None:
    penstock.write("shop.py", SLOW_IMPORT + APP.replace("time.sleep, 0.5", "int"))
    address = ("127.0.0.1", free_port)
    server = penstock.start("serve", "shop:app", "--port", str(free_port), "--workers", "2")
    wait_for(lambda: answers(address), server)
    server.send_signal(signal.SIGTERM)
    assert server.stdout is not None
    assert "stall" not in server.stdout.read()
