"""A program that uses the whole API, read by mypy and pyright and never run: what they infer, and what they refuse.

A `type: ignore` that hides nothing is an error. `tests/meta/test_typing.py` holds that every public name is used here.
"""

import asyncio
from collections.abc import AsyncIterator, Coroutine, Iterator
from concurrent.futures import Future
from typing import Any, assert_type

import penstock
from penstock.integrations.admission import AdmissionMiddleware
from penstock.pressure import Priority, limits
from penstock.tasks import Finding

# --- loops, servers, runs


def on_drain(loop: penstock.EventLoop) -> None:
    loop.stop()


async def wait_for_drain(loop: penstock.EventLoop) -> None:
    await asyncio.sleep(0)


async def main() -> int:
    loop = penstock.get_running_loop()
    assert_type(loop, penstock.EventLoop)
    loop.add_drain_hook(on_drain)
    loop.add_drain_hook(wait_for_drain)
    server = await loop.create_server(asyncio.Protocol, "127.0.0.1", 0)
    assert_type(server, penstock.Server)
    server.pause_accepting()
    server.resume_accepting()
    assert_type(server.max_connections, int | None)
    server.max_connections = 100
    assert_type(server.is_accepting(), bool)
    assert_type(await loop.create_unix_server(asyncio.Protocol, "socket"), penstock.Server)
    other = await asyncio.start_server(serve, "127.0.0.1", 0)
    if isinstance(other, penstock.Server):
        other.max_connections = None
    return 1


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    assert_type(penstock.gather_writes(writer.transport), bool)
    assert_type(penstock.segment_datagrams(writer.transport, 1200), bool)


def runs(config: penstock.Config) -> None:
    assert_type(penstock.run(main(), config=config, debug=True), int)
    with penstock.Runner(config) as runner:
        assert_type(runner.run(main()), int)
        assert_type(runner.get_loop(), penstock.EventLoop)
    with penstock.EventLoopPolicy(config) as policy:
        assert_type(policy.new_event_loop(), penstock.EventLoop)
    penstock.install(config)
    loop = penstock.new_event_loop()
    assert_type(loop, penstock.EventLoop)
    asyncio.Runner(loop_factory=penstock.new_event_loop).close()
    assert_type(penstock.loop.NATIVE, bool)
    assert_type(penstock.__version__, str)


def configs() -> penstock.Config:
    assert_type(penstock.Config.load(), penstock.config.Config)
    return penstock.Config(
        loop=penstock.LoopConfig(spin_us=50),
        executors=penstock.ExecutorsConfig(default="io", lanes={"db": penstock.LaneConfig(kind="threads", workers=8)}),
        signals=penstock.SignalsConfig(drain_s=30),
        serve=penstock.ServeConfig(startup_s=60),
        workers=penstock.WorkersConfig(max_requests=10_000),
        monitor=penstock.MonitorConfig(actions=True),
        tasks=penstock.TasksConfig(level="trace"),
        pressure=penstock.PressureConfig(lag_high_s=0.01),
    )


def mistaken_runs(loop: penstock.EventLoop, server: penstock.Server) -> None:
    penstock.nonsense()  # type: ignore[attr-defined]
    penstock.tasks.nonsense()  # type: ignore[attr-defined]
    penstock.pressure.nonsense()  # type: ignore[attr-defined]
    penstock.executors.nonsense()  # type: ignore[attr-defined]
    penstock.telemetry.nonsense()  # type: ignore[attr-defined]
    penstock.testing.nonsense()  # type: ignore[attr-defined]
    penstock.integrations.nonsense()  # type: ignore[attr-defined]
    penstock.pressure.limits.nonsense()  # type: ignore[attr-defined]
    penstock.run(main)  # type: ignore[arg-type]
    penstock.LoopConfig(spin=50)  # type: ignore[call-arg]
    penstock.Config(loop={"spin_us": 50})  # type: ignore[arg-type]
    loop.add_drain_hook(main)  # type: ignore[arg-type]
    server.max_connections = "many"  # type: ignore[assignment]
    server.pause_accepting("now")  # type: ignore[call-arg]
    asyncio.new_event_loop().add_drain_hook(on_drain)  # type: ignore[attr-defined]


# --- executors


def area(width: int, height: int = 1) -> float:
    return width * height


@penstock.offloaded(lane="db")
def query(text: str) -> bytes:
    return text.encode()


async def executors(
    lanes: penstock.executors.LaneSet,
    processes: penstock.executors.ProcessLane,
    threads: penstock.executors.ThreadLane,
) -> None:
    assert_type(await penstock.offload(area, 1), float)
    assert_type(await penstock.to_thread(area, 1), float)
    assert_type(await asyncio.create_task(query("select")), bytes)
    assert_type(penstock.executors.statistics(), dict[str, penstock.executors.LaneStatistics])
    assert_type(penstock.executors.offload, penstock.executors.Offload)
    assert_type(penstock.executors.usable_cores(), penstock.executors.Cores)
    assert_type(penstock.executors.current_cores(), penstock.executors.Cores)
    assert_type(processes.submit(area, 1), Future[float])
    assert_type(lanes.names(), tuple[str, ...])
    assert_type(threads.submit(area, 1), Future[float])
    await penstock.executors.to_thread(area, 1)
    penstock.executors.offloaded(area)
    await query(5)  # type: ignore[arg-type]


# --- tasks


def on_finding(finding: Finding) -> None:
    assert_type(finding.site, penstock.tasks.Place | None)


async def tasks(loop: asyncio.AbstractEventLoop) -> None:
    penstock.tasks.on_finding(on_finding)
    penstock.tasks.off_finding(on_finding)
    penstock.tasks.set_level("time")
    loop.set_task_factory(penstock.tasks.TaskFactory())
    assert_type(penstock.tasks.statistics(), penstock.tasks.TaskStatistics)
    assert_type(penstock.tasks.statistics().figures, penstock.tasks.LoopFigures)
    assert_type(penstock.tasks.statistics().latency, penstock.times.Times)
    assert_type(penstock.tasks.sites(), list[penstock.tasks.SiteStatistics])
    assert_type(penstock.tasks.findings(), list[Finding])
    assert_type(penstock.tasks.live()[0], penstock.tasks.LiveTask)
    assert_type(penstock.tasks.await_graph(), penstock.tasks.AwaitGraph)
    assert_type(penstock.tasks.dump_trace("trace.json"), int)
    assert_type(penstock.tasks.spawn(main()), asyncio.Task[int])
    assert_type(await penstock.tasks.spawn_when_free(main(), name="main"), asyncio.Task[int])
    penstock.tasks.trace_on_signal(loop, 10)
    penstock.tasks.spawn(main)  # type: ignore[arg-type]
    penstock.tasks.on_finding(on_drain)  # type: ignore[arg-type]


# --- pressure

gate = penstock.Gate(limit="auto", deadline_s=0.1)
throttle = penstock.pressure.Throttle()


@gate.guard
async def answer(request: str, *, retries: int = 0) -> bytes:
    return request.encode()


@throttle.guard
async def ask(request: str) -> bytes:
    return request.encode()


class Service:
    @gate.guard
    async def answer(self, request: str) -> bytes:
        return request.encode()


async def guarded() -> None:
    coro: Coroutine[Any, Any, bytes] = answer("a", retries=1)
    assert_type(await coro, bytes)
    assert_type(await asyncio.create_task(answer("a")), bytes)
    assert_type(await asyncio.create_task(ask("a")), bytes)
    assert_type(await asyncio.create_task(Service().answer("a")), bytes)
    async with asyncio.TaskGroup() as group:
        assert_type(group.create_task(answer("a")), asyncio.Task[bytes])
    await answer(1)  # type: ignore[arg-type]
    await answer("a", retry=1)  # type: ignore[call-arg]
    await Service().answer()  # type: ignore[call-arg]
    penstock.Gate(limit="many")  # type: ignore[arg-type]


async def gates(loop_gate: penstock.pressure.LoopGate) -> None:
    assert_type(loop_gate.statistics(), penstock.pressure.LoopStatistics)
    await gate.enter(priority=Priority.HIGH, key="client")
    gate.leave()
    async with gate.entry(priority=Priority.LOW) as _:
        pass
    assert_type(gate.entry(), penstock.pressure.Entry)
    assert_type(gate.statistics(), penstock.pressure.GateStatistics)
    assert_type(penstock.pressure.gates(), list[penstock.pressure.Gate])
    assert_type(penstock.pressure.statistics(), dict[str, penstock.pressure.GateStatistics])
    assert_type(penstock.pressure.loop_statistics(), penstock.pressure.LoopStatistics)
    assert_type(throttle.statistics(), penstock.pressure.ThrottleStatistics)
    with penstock.pressure.deadline(0.5):
        assert_type(penstock.pressure.remaining_s(), float | None)
        assert_type(penstock.pressure.expires_at(), float | None)
        assert_type(penstock.pressure.from_headers(penstock.pressure.to_headers()), float | None)
    budget = penstock.pressure.RetryBudget()
    assert_type(budget.statistics(), penstock.pressure.RetryStatistics)
    assert_type(await budget.retry(main), int)


def all_limits(window: limits.Window) -> Iterator[limits.Limit]:
    assert_type(limits.make_limit("auto"), limits.Limit)
    growing: limits.GrowingLimit = limits.Gradient(initial=50)
    assert_type(growing.when_full(window), int)
    print(limits.LEAST_SAMPLES + limits.MOST_SAMPLES, penstock.pressure.limits.Window is type(window))
    yield from (limits.Fixed(4), limits.Aimd(), limits.Gradient(), limits.Gradient2(), limits.Vegas())


async def groups() -> None:
    semaphore = penstock.pressure.Semaphore(4)
    async with semaphore, penstock.pressure.BoundedSemaphore(4):
        pass
    limiter = penstock.pressure.CapacityLimiter(4)
    assert_type(limiter.statistics(), penstock.pressure.CapacityStatistics)
    async with penstock.pressure.BoundedTaskGroup(semaphore) as group:
        assert_type(await group.spawn(main), asyncio.Task[int])
    results = penstock.pressure.map_bounded(answer, ["a", "b"], limit=2)
    assert_type([result async for result in results], list[bytes])


async def queues(channel: penstock.pressure.Channel[int]) -> AsyncIterator[int]:
    await channel.send(1)
    channel.try_send("1")  # type: ignore[arg-type]
    assert_type(await channel.receive(), int)
    assert_type(channel.statistics(), penstock.pressure.ChannelStatistics)
    queue: penstock.pressure.Queue[int] = penstock.pressure.Queue(8)
    ordered: penstock.pressure.PriorityQueue[int] = penstock.pressure.PriorityQueue(8)
    stack: penstock.pressure.LifoQueue[int] = penstock.pressure.LifoQueue(8)
    try:
        yield await queue.get() + await ordered.get() + await stack.get()
    except penstock.pressure.QueueShutDown:
        await queue.put("1")  # type: ignore[arg-type]


def memory(transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
    assert_type(penstock.pressure.memory_statistics(), penstock.pressure.MemoryStatistics)
    assert_type(penstock.pressure.bound_memory(loop, buffer_bytes=1 << 20), bool)
    assert_type(penstock.pressure.set_receive_deadline(transport, 5), bool)
    assert_type(penstock.pressure.expect_request(transport), bool)
    assert_type(penstock.pressure.set_receiving(transport, True), bool)


def refusals(problem: Exception) -> None:
    if isinstance(problem, penstock.errors.Overloaded):
        assert_type(problem.reason, str)
        assert_type(problem.retry_after_s, float | None)


# --- telemetry, integrations, testing


def telemetry(sources: penstock.telemetry.Sources, finding: Finding) -> None:
    assert_type(penstock.telemetry.METRICS["asyncio.tasks.created"], penstock.telemetry.Metric)
    penstock.telemetry.Collector(sources)
    penstock.telemetry.Instruments(sources).close()
    penstock.telemetry.MetricReader(sources).take()
    penstock.tasks.on_finding(penstock.telemetry.Spans())
    penstock.telemetry.span_of(finding, None)


async def application(scope: Any, receive: Any, send: Any) -> None: ...


async def integrations() -> None:
    AdmissionMiddleware(application, gate)
    penstock.integrations.admission.AdmissionMiddleware(application, gate)
    penstock.integrations.aiohttp.admission_middleware(gate)
    penstock.integrations.anyio.install()
    penstock.integrations.grpc.AdmissionInterceptor(gate)
    penstock.integrations.health.HealthServer(8081).ready()
    penstock.integrations.metrics.serve_metrics(9000)
    server = await penstock.integrations.streams.start_server(serve, port=7000, gate=gate)
    assert_type(server, asyncio.Server)


async def on_network(loop: penstock.testing.VirtualLoop, network: penstock.testing.Network) -> int:
    network.set_link(penstock.testing.Link(latency_s=0.01), port=80)
    connections: list[penstock.testing.Connection] = network.connections
    assert_type(loop.statistics(), penstock.testing.VirtualStatistics)
    return len(connections)


def tests() -> None:
    assert_type(penstock.testing.run(main()), int)
    assert_type(penstock.testing.explore(main), penstock.testing.Exploration)
