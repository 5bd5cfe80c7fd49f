"""The end of the process while daemon threads run loops: no crash, and the exit code is the program's."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

PROGRAM = """
import asyncio, socket, sys, threading, time
import penstock

async def busy(ready):
    async def echo(reader, writer):
        while data := await reader.read(100):
            writer.write(data)
    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname()[:2])
    ready.set()
    while True:
        writer.write(b"x" * 100)
        await reader.readexactly(100)
        await asyncio.gather(*(asyncio.sleep(n / 10000) for n in range(5)))

for _ in range(3):
    ready = threading.Event()
    threading.Thread(target=penstock.run, args=(busy(ready),), daemon=True).start()
    ready.wait()
time.sleep({delay_s})
sys.exit(7)
"""
TIMES = 6


def ends(delay_s):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(delay_s=delay_s)], capture_output=True, text=True, timeout=60, check=False
    )
    return done.returncode, "Fatal" in done.stderr


def test_the_process_ends_in_order_while_daemon_threads_run_loops():
    with ThreadPoolExecutor(2) as threads:
        assert list(threads.map(ends, [number / 500 for number in range(TIMES)])) == [(7, False)] * TIMES
