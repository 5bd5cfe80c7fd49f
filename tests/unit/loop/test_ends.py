"""What ends behind a loop's back: its listener, shut down by a sharer; its thread, as the interpreter exits."""

import asyncio
import socket
import subprocess
import sys

import pytest

from penstock.loop import NATIVE, EventLoop

DAEMONS = """
import asyncio, threading
import penstock

running = threading.Semaphore(0)

def run(pause_s):
    loop = penstock.new_event_loop()

    async def work():
        running.release()
        while True:
            await asyncio.sleep(pause_s)
            loop.call_later(0.0005, int)

    loop.run_until_complete(work())

for pause_s in (0, 0.001, 0, 3600):
    threading.Thread(target=run, args=(pause_s,), daemon=True).start()
    running.acquire()
"""


@pytest.mark.skipif(not NATIVE, reason="asyncio's own loop accepts again and again")
def test_a_listener_that_a_sharer_shuts_down_is_told_once_a_second_and_costs_no_turns():
    loop = EventLoop()
    reports = []
    loop.set_exception_handler(lambda _, context: reports.append(context))

    async def main():
        server = await loop.create_server(asyncio.Protocol, "127.0.0.1", 0)
        began_s = loop.time()
        with socket.socket(fileno=server.sockets[0].dup().detach()) as shared:
            shared.shutdown(socket.SHUT_RDWR)
        await asyncio.sleep(0.2)
        server.close()
        return loop.time() - began_s

    took_s = loop.run_until_complete(main())
    loop.close()
    assert 1 <= len(reports) <= 1 + took_s
    assert all("accept() failed" in report["message"] for report in reports)


def test_the_interpreter_exits_while_daemon_threads_run_loops():
    told = subprocess.run([sys.executable, "-c", DAEMONS], capture_output=True, text=True, timeout=60, check=False)
    assert (told.returncode, told.stderr) == (0, "")
