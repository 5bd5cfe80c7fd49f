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
        await asyncio.gather(asyncio.to_thread(int), *(asyncio.sleep(n / 10000) for n in range(5)))

for _ in range(3):
    ready = threading.Event()
    threading.Thread(target=penstock.run, args=(busy(ready),), daemon=True).start()
    ready.wait()
time.sleep({delay_s})
sys.exit(7)
"""
IDLE_OR_BUSY = """
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
TIMES = 6
# Callbacks registered first are called last: this one comes after penstock's.
LATE_LANE = """
import threading

def submit_late():
    try:
        ThreadLane("late", LaneConfig()).submit(int)
    except RuntimeError as error:
        print(error)

threading._register_atexit(submit_late)
from penstock.config import LaneConfig
from penstock.executors.threads.lane import ThreadLane
"""


def ends(delay_s):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(delay_s=delay_s)], capture_output=True, text=True, timeout=60, check=False
    )
    return done.returncode, "Fatal" in done.stderr


def test_the_process_ends_in_order_while_daemon_threads_run_loops():
    with ThreadPoolExecutor(2) as threads:
        assert list(threads.map(ends, [number / 500 for number in range(TIMES)])) == [(7, False)] * TIMES


def test_a_lane_made_during_the_exit_takes_no_job_and_so_leaves_no_thread():
    done = subprocess.run([sys.executable, "-c", LATE_LANE], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, "lane 'late' is shut down: it takes no new jobs\n")


def test_the_interpreter_exits_while_daemon_threads_run_loops():
    told = subprocess.run([sys.executable, "-c", IDLE_OR_BUSY], capture_output=True, text=True, timeout=60, check=False)
    assert (told.returncode, told.stderr) == (0, "")
