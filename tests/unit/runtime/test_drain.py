"""A drain waits for work in flight only, and ends in time, whatever the program's threads do."""

import socket
import time

import pytest

from penstock.loop import NATIVE
from tests.unit.runtime.child import INT, TERM, Child, run

START = "import asyncio, os, penstock, signal, socket, sys, threading, time\nrun = penstock.run\n"
# longer than a test may last: what is not waited for is told from what is
LONG = {"PENSTOCK_SIGNALS_DRAIN_S": "60"}
SHORT = {"PENSTOCK_SIGNALS_DRAIN_S": "0.1"}
CORES = {"native": {}, "pure": {"PENSTOCK_PURE": "1"}} if NATIVE else {"pure": {}}

SERVER = """
async def serve(handler, make=asyncio.start_server):
    server = await make(handler, "127.0.0.1", 0)
    print("port", server.sockets[0].getsockname()[1])
    return server
"""


@pytest.fixture(params=CORES)
def core(request):
    return CORES[request.param]


def connect(child):
    port = int(child.expect("port").split()[1])
    return [socket.create_connection(("127.0.0.1", port), 20) for _ in range(2)]


# --- it ends


BLOCKED = {
    "a callback": "async def main(): print('ready'); time.sleep(60)",
    "a read": "async def main(): r, w = os.pipe(); print('ready'); os.read(r, 1)",
    "C code that hears no signal": (
        "import hashlib\nasync def main(): print('ready'); hashlib.pbkdf2_hmac('sha256', b'', b'', 2**31 - 1)"
    ),
    "a thread's job": "async def main(): print('ready'); await asyncio.to_thread(time.sleep, 60)",
    "an endless job": (
        "def job():\n    print('ready')\n    threading.Event().wait()\nasync def main(): await asyncio.to_thread(job)"
    ),
    "a task that stays": (
        "async def stay():\n    while True:\n        try: await asyncio.sleep(60)\n"
        "        except asyncio.CancelledError: pass\n"
        "async def main(): kept = asyncio.create_task(stay()); await asyncio.sleep(0); print('ready'); await kept"
    ),
    "a main task that stays": (
        "async def main():\n    print('ready')\n    while True:\n        try: await asyncio.sleep(60)\n"
        "        except asyncio.CancelledError: pass"
    ),
    "a thread at exit": (
        "async def main():\n    threading.Thread(target=time.sleep, args=(60,)).start()\n"
        "    print('ready')\n    await asyncio.sleep(60)"
    ),
    "an exit function": (
        "import atexit\natexit.register(time.sleep, 60)\nasync def main(): print('ready'); await asyncio.sleep(60)"
    ),
}


@pytest.mark.parametrize("name", BLOCKED)
def test_the_process_is_gone_in_time_whatever_blocks_it(name):
    with Child(f"{START}{BLOCKED[name]}\nrun(main())\n", **SHORT) as child:
        child.expect("ready")
        began = time.monotonic()
        child.send(TERM)
        ended = child.ended()
    assert ended.returncode == 128 + TERM
    # 0.1 s and 0.75 s, on a machine that has other work
    assert time.monotonic() - began < 10
    last = ended.err.splitlines()[-1]
    assert last.startswith("penstock: SIGTERM: ")
    assert "s have passed, the process ends; " in last


def test_the_last_line_says_where_the_loops_thread_is_blocked_and_which_jobs_are_left():
    blocked = run(
        f"{START}def blocks():\n    print('ready')\n    time.sleep(60)\nasync def main(): blocks()\nrun(main())\n",
        INT,
        **SHORT,
    )
    assert blocked.returncode == 128 + INT
    assert "it waited for MainThread at <string>:5 in blocks" in blocked.err
    job = run(f"{START}{BLOCKED['a thread' + chr(39) + 's job']}\nrun(main())\n", TERM, **SHORT)
    assert "cancelling the rest: 1 job of lane io" in job.err


def test_c_code_that_takes_the_gil_and_keeps_it_is_ended_too_and_its_place_shown():
    program = (
        START
        + """
import re
def keeps_the_gil(loop):
    re.match(r"(a+)+$", "a" * 40 + "b")
async def main():
    asyncio.get_running_loop().add_drain_hook(keeps_the_gil)
    print("ready")
    await asyncio.Event().wait()
run(main())
"""
    )
    ended = run(program, TERM, **SHORT)
    assert ended.returncode == 1
    assert "in keeps_the_gil" in ended.err


def test_signals_that_come_together_are_one():
    program = (
        START
        + """
async def work():
    await asyncio.to_thread(time.sleep, 0.2)
    print("done")
async def main():
    kept = asyncio.create_task(work())
    await asyncio.sleep(0)
    for signum in signal.SIGTERM, signal.SIGINT, signal.SIGTERM:
        os.kill(os.getpid(), signum)
    await asyncio.Event().wait()
run(main())
"""
    )
    ended = run(program, **LONG)
    assert (ended.returncode, ended.out) == (128 + TERM, "done\n")


# --- what it waits for


HEARTBEAT = (
    START
    + SERVER
    + """
async def beat():
    while True:
        await asyncio.sleep(0.01)
async def main():
    beats = [asyncio.create_task(beat()), asyncio.create_task(asyncio.Queue().get())]
    server = await serve(lambda reader, writer: None)
    print("ready")
    await server.serve_forever()
run(main())
"""
)


def test_endless_tasks_that_serve_no_connection_are_not_waited_for(core):
    ended = run(HEARTBEAT, TERM, **LONG, **core)
    assert (ended.returncode, ended.err) == (128 + TERM, "")


LINES = (
    START
    + SERVER
    + """
import logging
logging.basicConfig(format="%(message)s", stream=sys.stdout)
async def answer(reader, writer):
    while line := await read(reader):
        if line == b"slow\\n":
            print("slow begins")
            await asyncio.to_thread(sys.stdin.readline)
        writer.write(line)
        print("answered")
    writer.close()
async def main():
    server = await serve(answer)
    await server.serve_forever()
"""
)
READS = {
    "plainly": "async def read(reader): return await reader.readline()\n",
    "with wait_for": "async def read(reader): return await asyncio.wait_for(reader.readline(), 60)\n",
    "in a group": (
        "async def read(reader):\n    async with asyncio.TaskGroup() as group:\n"
        "        task = group.create_task(reader.readline())\n    return task.result()\n"
    ),
}


@pytest.mark.parametrize("how", READS)
def test_idle_connections_are_closed_at_once_while_another_is_answered(core, how):
    with Child(LINES + READS[how] + "run(main())", **LONG, **core) as child:
        idle, busy = connect(child)
        with idle, busy:
            idle.sendall(b"one\n")
            assert idle.recv(100) == b"one\n"
            busy.sendall(b"slow\n")
            child.expect("slow begins")
            child.send(TERM)
            assert idle.recv(100) == b""
            told = child.expect("SIGTERM: waiting up to 60 s for 1 connection (127.0.0.1:")
            assert "(answer at <string>:" in told and "1 job of lane io" in told
            child.say("go on")
            assert busy.makefile("rb").read() == b"slow\n"
        assert child.ended().returncode == 128 + TERM


def test_a_request_of_which_a_part_has_come_is_answered(core):
    with Child(LINES + READS["plainly"] + "run(main())", **LONG, **core) as child:
        idle, busy = connect(child)
        with idle, busy:
            busy.sendall(b"one\nhal")
            assert busy.recv(100) == b"one\n"
            child.send(TERM)
            assert idle.recv(100) == b""
            busy.sendall(b"f\n")
            assert busy.makefile("rb").read() == b"half\n"
        assert child.ended().returncode == 128 + TERM


BLOCKING = (
    START
    + SERVER
    + """
async def answer(reader, writer):
    writer.write(await reader.readline())
    await writer.drain()
    writer.close()
async def main():
    # one accept a turn, which on asyncio's own loop the backlog says
    backlog = 1 if os.environ.get("PENSTOCK_PURE") else 100
    server = await serve(answer, lambda *where: asyncio.start_server(*where, backlog=backlog))
    await asyncio.sleep(0)
    print("blocks")
    sys.stdin.readline()
    await server.serve_forever()
run(main())
"""
)


def test_clients_that_the_kernel_has_taken_are_answered(core):
    with Child(BLOCKING, PENSTOCK_LOOP_ACCEPT_BATCH="1", **LONG, **core) as child:
        port = int(child.expect("port").split()[1])
        child.expect("blocks")
        clients = [
            socket.create_connection(("127.0.0.1", port), 20) for _ in range(2 if "PENSTOCK_PURE" in core else 20)
        ]
        for client in clients:
            client.sendall(b"one\n")
        child.send(TERM)
        child.say("go on")
        for client in clients:
            with client:
                assert client.makefile("rb").read() == b"one\n"
        assert child.ended().returncode == 128 + TERM


PROTOCOL = (
    START
    + SERVER
    + """
class Answer(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport = transport
    def data_received(self, data):
        loop = asyncio.get_running_loop()
        if data == b"slow":
            print("slow begins")
            loop.add_reader(0, self.answer, data)
        elif data == b"stream":
            self.kept = loop.create_task(self.stream())
        else:
            self.transport.write(data)
    def answer(self, data):
        asyncio.get_running_loop().remove_reader(0)
        self.transport.write(data)
    async def stream(self):
        self.transport.write(b"first")
        await asyncio.to_thread(sys.stdin.readline)
        await asyncio.sleep(0.05)
        self.transport.write(b"last")
async def main():
    server = await serve(Answer, asyncio.get_running_loop().create_server)
    await server.serve_forever()
run(main())
"""
)


def test_a_protocols_connection_is_busy_until_it_has_answered(core):
    with Child(PROTOCOL, **LONG, **core) as child:
        idle, busy = connect(child)
        with idle, busy:
            idle.sendall(b"one")
            assert idle.recv(100) == b"one"
            busy.sendall(b"slow")
            child.expect("slow begins")
            child.send(TERM)
            assert idle.recv(100) == b""
            child.say("go on")
            assert busy.makefile("rb").read() == b"slow"
        assert child.ended().returncode == 128 + TERM


def test_a_task_that_a_protocol_made_keeps_its_connection_open_to_its_end(core):
    with Child(PROTOCOL, **LONG, **core) as child:
        idle, busy = connect(child)
        with idle, busy:
            busy.sendall(b"stream")
            assert busy.recv(100) == b"first"
            child.send(TERM)
            assert idle.recv(100) == b""
            child.say("go on")
            assert busy.makefile("rb").read() == b"last"
        assert child.ended().returncode == 128 + TERM


def test_a_job_in_flight_ends_and_its_task_takes_the_result():
    program = (
        START
        + """
async def work():
    await asyncio.to_thread(sys.stdin.readline)
    print("done")
async def main():
    kept = asyncio.create_task(work())
    await asyncio.sleep(0)
    asyncio.get_running_loop().add_drain_hook(lambda loop: print("drains"))
    print("ready")
    await asyncio.Event().wait()
run(main())
"""
    )
    with Child(program, **LONG) as child:
        child.expect("ready")
        child.send(TERM)
        child.expect("drains")
        child.say("go on")
        ended = child.ended()
    assert (ended.returncode, "done" in ended.out) == (128 + TERM, True)


# --- nothing is cut short


CLEAN_UP = (
    START
    + """
async def gen():
    try:
        yield
    finally:
        await asyncio.sleep(0)
        print("closed")
async def main():
    global kept
    kept = gen()
    await anext(kept)
    asyncio.get_running_loop().call_soon(os.kill, os.getpid(), signal.{name})
    {body}
run(main())
"""
)
BODIES = {
    "gather": "await asyncio.gather(asyncio.sleep(0.02))",
    "wait": "await asyncio.wait([asyncio.create_task(asyncio.sleep(0.02))])",
    "an error": "\n    try: await asyncio.sleep(60)\n    finally: raise ValueError",
    "a last signal": "\n    await asyncio.sleep(60)",
}


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
@pytest.mark.parametrize("body", BODIES)
def test_a_drain_never_cuts_the_runners_clean_up_short(name, body):
    ended = run(CLEAN_UP.replace("{name}", name).replace("{body}", BODIES[body]), **LONG)
    assert "closed" in ended.out
    by_signal = (128 + TERM,) if name == "SIGTERM" else (128 + INT, -INT)
    assert ended.returncode in ((1,) if body == "an error" else by_signal)


def test_a_signal_during_the_clean_up_ends_the_process_after_it():
    program = (
        START
        + """
async def gen():
    try:
        yield
    finally:
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.sleep(0.01)
        print("closed")
async def main():
    global kept
    kept = gen()
    await anext(kept)
run(main())
print("not here")
"""
    )
    ended = run(program, **LONG)
    assert (ended.returncode, ended.out) == (128 + TERM, "closed\n")


def test_a_program_that_removes_its_last_signal_handler_still_hears_of_a_signal_in_a_thread(core):
    program = (
        START
        + """
async def main():
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGHUP, print, "hup")
    other = penstock.new_event_loop()
    other.add_signal_handler(signal.SIGUSR2, print)
    other.close()
    signal.raise_signal(signal.SIGHUP)
    await asyncio.sleep(0.01)
    loop.remove_signal_handler(signal.SIGHUP)
    threading.Timer(0.01, signal.raise_signal, (signal.SIGTERM,)).start()
    await asyncio.sleep(60)
run(main())
"""
    )
    ended = run(program, **LONG, **core)
    assert (ended.returncode, ended.out) == (128 + TERM, "hup\n")


def see_idle_closed_and_busy_answered(child, idle, busy):
    """Send SIGTERM while one client has its answer and the other waits for one."""
    for client in (idle, busy):
        client.sendall(b"one\n")
        assert client.recv(100) == b"one\n"
    busy.sendall(b"slow\n")
    child.expect("slow begins")
    child.send(TERM)
    assert idle.recv(100) == b""
    child.say("go on")
    assert busy.makefile("rb").read() == b"slow\n"


UNIX = (
    LINES
    + READS["plainly"]
    + """
async def on_unix():
    server = await asyncio.start_unix_server(answer, os.environ["SOCKET"])
    print("port 0")
    await server.serve_forever()
run(on_unix())
"""
)


def test_on_a_unix_socket_the_tasks_tell_what_is_idle(core, tmp_path):
    path = str(tmp_path / "s")
    with Child(UNIX, SOCKET=path, **LONG, **core) as child:
        child.expect("port")
        with socket.socket(socket.AF_UNIX) as idle, socket.socket(socket.AF_UNIX) as busy:
            for client in (idle, busy):
                client.settimeout(20)
                client.connect(path)
            see_idle_closed_and_busy_answered(child, idle, busy)
        assert child.ended().returncode == 128 + TERM


TLS = (
    LINES
    + READS["plainly"]
    + """
import ssl
async def over_tls():
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(f"{os.environ['CERTS']}/certificate.pem", f"{os.environ['CERTS']}/key.pem")
    await serve(answer, lambda *args: asyncio.start_server(*args, ssl=context))
    await asyncio.Event().wait()
run(over_tls())
"""
)


def test_with_tls_idle_connections_are_closed_and_others_answered(core, contexts, tmp_path_factory):
    folder = next(tmp_path_factory.getbasetemp().glob("tls*"))
    with Child(TLS, CERTS=str(folder), **LONG, **core) as child:
        idle, busy = (contexts[1].wrap_socket(sock, server_hostname="localhost") for sock in connect(child))
        with idle, busy:
            see_idle_closed_and_busy_answered(child, idle, busy)
        assert child.ended().returncode == 128 + TERM


AIOHTTP = (
    START
    + """
from aiohttp import web
async def slow(request):
    print("slow begins")
    await asyncio.to_thread(sys.stdin.readline)
    return web.Response(text="slow")
async def quick(request):
    return web.Response(text="quick")
async def main():
    app = web.Application()
    app.add_routes([web.get("/slow", slow), web.get("/quick", quick)])
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    print("port", runner.addresses[0][1])
    await asyncio.Event().wait()
run(main())
"""
)


def test_aiohttp_closes_its_idle_connections_and_answers_the_others(core):
    pytest.importorskip("aiohttp")
    with Child(AIOHTTP, **LONG, **core) as child:
        idle, busy = connect(child)
        with idle, busy:
            idle.sendall(b"GET /quick HTTP/1.1\r\nhost: x\r\n\r\n")
            assert idle.recv(1000).endswith(b"quick")
            busy.sendall(b"GET /slow HTTP/1.1\r\nhost: x\r\n\r\n")
            child.expect("slow begins")
            child.send(TERM)
            assert idle.recv(100) == b""
            child.say("go on")
            assert busy.makefile("rb").read().endswith(b"slow")
        assert child.ended().returncode == 128 + TERM


def test_a_request_that_a_gate_admitted_is_waited_for_and_named():
    program = (
        START
        + """
import penstock
async def work(gate):
    async with gate:
        print("ready")
        await asyncio.sleep(60)
async def main():
    await asyncio.gather(asyncio.create_task(work(penstock.Gate(4, name="orders"))))
run(main())
"""
    )
    ended = run(program, TERM, **SHORT)
    assert ended.returncode == 128 + TERM
    assert "cancelling the rest: 1 request of gate orders" in ended.err


def test_a_grpc_response_stream_is_waited_for_after_it_gave_its_permit_back():
    pytest.importorskip("grpc")
    program = (
        START
        + """
import grpc, penstock
from penstock.integrations.grpc import AdmissionInterceptor
gate, go = penstock.Gate(4, name="calls"), asyncio.Event()
async def rows(request, context):
    yield b"first"
    await go.wait()
    yield b"last"
class Handlers(grpc.GenericRpcHandler):
    def service(self, call):
        return grpc.unary_stream_rpc_method_handler(rows)
async def main():
    server = grpc.aio.server(interceptors=[AdmissionInterceptor(gate, stream_after_s=0.01)])
    server.add_generic_rpc_handlers((Handlers(),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    asyncio.get_running_loop().add_drain_hook(lambda loop: loop.call_later(0.2, go.set))
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        call = channel.unary_stream("/x/rows")(b"a")
        await call.read()
        while not gate.statistics().streams:
            await asyncio.sleep(0.01)
        print("ready")
        print(await call.read())
        await asyncio.Event().wait()
run(main())
"""
    )
    ended = run(program, TERM, **LONG)
    assert ended.returncode == 128 + TERM
    assert "b'last'" in ended.out
