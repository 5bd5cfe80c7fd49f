"""A source of the monitor's page without processes: answers of a service that moves, with faults on request."""

import math
import time
from dataclasses import dataclass, field
from typing import Any

from penstock.monitor.sources import ProcessTarget
from penstock.times import Histogram
from tests.support import snapshots
from tests.support.snapshots import times_of

__all__ = ["FakeProcess", "FakeSource"]

SITES = ("handle_request", "watch_orders", "push_updates", "refresh_cache", "send_mail", "poll_queue", "heartbeat")


def place(function: str, line: int = 40) -> dict[str, Any]:
    return snapshots.place("/srv/shop/app.py", line, function)


@dataclass
class FakeProcess:
    """A process of the source. `blocked_s` is the age of a callback that runs, `holds_gil` makes answers partial."""

    pid: int
    number: int | None = None
    blocked_s: float | None = None
    holds_gil: bool = False
    is_silent: bool = False
    actions: bool = False
    name: str = "serve shop:app"
    asked: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    findings: list[dict[str, Any]] = field(default_factory=list)
    # how far its clocks are behind, for answers of the past
    behind_s: float = 0.0

    def __post_init__(self) -> None:
        self.began_s = self.now_s()
        self.delay, self.wait, self.run = Histogram(), Histogram(), Histogram()
        self.finished = self.shed = self.turns = 0
        self.active_s = self.idle_s = 0.0
        self.before_s = self.began_s

    def now_s(self) -> float:
        return time.monotonic() - self.behind_s

    def answer(self, command: str, arguments: dict[str, Any]) -> dict[str, Any]:
        self.asked.append((command, arguments))
        if self.is_silent:
            raise TimeoutError(f"process {self.pid} did not answer in 2 s")
        head = {
            "ok": True,
            "version": 1,
            "pid": self.pid,
            "at_s": self.now_s(),
            "wall_time_s": time.time() - self.behind_s,
        }
        if self.holds_gil:
            return {**head, "partial": True, **self._partial()}
        return {**head, "partial": False, **getattr(self, f"_{command.replace('-', '_')}")(**arguments)}

    def _partial(self) -> dict[str, Any]:
        blocked = {"since_s": 0.0, "lasted_s": self.blocked_s or 0.0, "kind": "callback"}
        loop = {"name": "main", "running": True, "thread_id": 1, "turns": self.turns, "blocked": blocked}
        thread = {"native_id": self.pid, "name": "python", "state": "R", "cpu_s": 3.0}
        return {
            "reason": "the GIL was not available for 0.062 s",
            "unread": ["tasks", "lanes", "gates"],
            "loops": [loop],
            "threads": [thread],
        }

    def _snapshot(self, sites: int = 50) -> dict[str, Any]:
        now_s = self.now_s()
        span_s, self.before_s = now_s - self.before_s, now_s
        wave = 0.5 + 0.4 * math.sin(now_s / 3 + self.pid)
        for each in range(200):
            self.delay.add(int((50e-6 + 4e-3 * wave * (each / 200) ** 6) * 1e9))
            self.wait.add(int((30e-6 + 2e-2 * wave * (each / 200) ** 4) * 1e9))
            self.run.add(int((4e-3 + 3e-2 * (each / 200) ** 3) * 1e9))
        self.finished += int(1200 * span_s * (0.6 + wave))
        self.shed += int(150 * span_s * max(0.0, wave - 0.5))
        self.turns += 1000
        self.active_s += span_s * (1.0 if self.blocked_s else wave)
        self.idle_s += span_s * (0.0 if self.blocked_s else 1 - wave)
        return {
            "process": self._process(now_s),
            "loops": [self._loop(wave)],
            "gates": [self._gate(wave)],
            "sheds": {},
            "disconnects": {},
            "mark": len(self.findings),
        }

    def _process(self, now_s: float) -> dict[str, Any]:
        worker = None if self.number is None else {"supervisor": 1, "number": self.number}
        uptime_s = now_s - self.began_s + 754
        figures = {"uptime_s": uptime_s, "cpu_s": uptime_s * 0.6, "rss_bytes": 83_400_000, "descriptors": 164}
        versions = {"python": "3.13.0", "penstock": "0.1.0", "threads": 9, "cores": 2, "descriptors_limit": 1024}
        return {"pid": self.pid, "name": self.name, **figures, **versions, "actions": self.actions, "worker": worker}

    def _loop(self, wave: float) -> dict[str, Any]:
        blocked = None
        if self.blocked_s is not None:
            stack = ["app.py:41 in render", "app.py:88 in handle_request"]
            blocked = {"since_s": 0.0, "lasted_s": self.blocked_s, "kind": "callback", "task": "t", "stack": stack}
        counts = {name: int((90 - 11 * at) * (0.7 + wave * (at % 3) / 2)) for at, name in enumerate(SITES)}
        sites = [{"site": place(name, 40 + at), "live": live} for at, (name, live) in enumerate(counts.items())]
        tasks = {"created": self.finished, "completed": self.finished, "live": sum(counts.values())}
        lanes = [self._lane("cpu", "processes", 2, 2 * wave), self._lane("io", "threads", 8, 8 * wave)]
        facts = {"name": "main", "implementation": "native", "level": "time", "running": True, "thread_id": 1}
        figures = {"turns": self.turns, "active_s": self.active_s, "idle_s": self.idle_s, "ready_count": int(9 * wave)}
        more = {"timer_count": 31, "stalls": {"python": 2, "gil": 1}, "connections": {"streams": 120, "listeners": 1}}
        more["connections"] |= {"datagrams": 0, "pipes": 4, "other": 2, "bytes_buffered": 48_200}
        more["overload"] = {"deferred_reads": 0, "deferred_accepts": 0, "shed_unread": 0}
        return {
            **(facts | figures | more),
            "delay": times_of(self.delay),
            "blocked": blocked,
            "tasks": tasks,
            "sites": sites,
            "lanes": lanes,
        }

    def _lane(self, name: str, kind: str, workers: int, busy: float) -> dict[str, Any]:
        figures = {"workers": workers, "workers_busy": round(busy), "workers_limit": workers, "running": round(busy)}
        counts = {
            "queued": int(max(0.0, busy - workers / 2) * 3),
            "queue_limit": 64,
            "completed": {"result": self.finished // 4},
        }
        return {"name": name, "kind": kind, **figures, **counts, **self._times("wait", "run"), "shed": {}}

    def _gate(self, wave: float) -> dict[str, Any]:
        figures = {"limit": 24, "inflight": int(24 * wave), "queued": int(8 * wave), "oldest_wait_s": 0.021 * wave}
        counts = {"admitted": self.finished, "finished": self.finished, "sheds": {"queue full": self.shed}}
        return {"name": "requests", **figures, **counts, **self._times("wait", "service"), "limit_reason": "gradient"}

    def _times(self, wait: str, run: str) -> dict[str, Any]:
        return {wait: times_of(self.wait), run: times_of(self.run)}

    def _tasks(self, **arguments: Any) -> dict[str, Any]:
        if arguments.get("group") == "site":
            figures = {"count": 12, "ready": 1, "running": 0, "waiting": 11, "oldest_s": 31.0, "running_s": 0.2}
            return {"groups": [{"site": place(name), **figures} for name in SITES]}
        if arguments.get("group") == "stack":
            frames = [place("handle_request", 88), place("fetch", 12)]
            return {
                "groups": [{"count": 9, "names": ["a", "b"], "frames": frames, "awaits": "a lock 'db'"}],
                "skipped": 0,
            }
        rows = [self._row(number) for number in range(1, 61)]
        text = arguments.get("filter", "").lower()
        matching = [row for row in rows if text in f"{row['name']} {row['site']['function']} {row['state']}".lower()]
        key = {"steps": "steps", "number": "number"}.get(arguments.get("sort", "age")) or f"{arguments['sort']}_s"
        matching.sort(key=lambda row: row[key], reverse=arguments.get("descending", True))
        return {"tasks": matching[: arguments.get("limit", 100)], "total": len(rows), "matched": len(matching)}

    def _row(self, number: int) -> dict[str, Any]:
        site, state = SITES[number % 7], ("waiting", "waiting", "ready", "running")[number % 4]
        figures = {"age_s": number * 1.7, "running_s": 0.4 / number, "ready_s": 0.01 * (number % 5), "waiting_s": 1.2}
        head = {"number": number, "name": f"{site}-{number}", "loop": "main", "site": place(site), "state": state}
        return {**head, **figures, "steps": 7 * (61 - number)}

    def _task(self, number: int) -> dict[str, Any]:
        chain = [place("handle_request", 88), place("fetch", 12)]
        awaits = {"kind": "lock", "text": "a lock 'db'"}
        waiters = [{"number": 3, "name": "supervise-3"}]
        stack = [place("main", 10)]
        return {
            "task": self._row(number),
            "chain": chain,
            "awaits": awaits,
            "creation_stack": stack,
            "waiters": waiters,
            "awaited_tasks": [],
        }

    def _graph(self) -> dict[str, Any]:
        edges = [["gather-1", f"fetch-{each}"] for each in range(1, 5)] + [["main", "gather-1"], ["main", "mover-a"]]
        cycle = ["mover-a", "mover-b", "mover-c"]
        edges += [["mover-a", "mover-b"], ["mover-b", "mover-c"], ["mover-c", "mover-a"]]
        groups = [{"count": 48, "names": ["push-1", "push-2"], "awaits": "a lock 'orders'", "awaits_kind": "lock"}]
        groups.append(
            {"count": 1, "names": ["fetch-1"], "awaits": "a socket to 10.0.0.7:5432", "awaits_kind": "socket"}
        )
        return {"task_count": 60, "groups": groups, "edges": edges, "cycles": [cycle], "skipped": 0}

    def _stacks(self) -> dict[str, Any]:
        return {"threads": [], "groups": []}

    def _findings(self, since: int = 0) -> dict[str, Any]:
        return {"findings": self.findings[since:], "mark": len(self.findings)}

    def _trace(self, seconds: float) -> dict[str, Any]:
        return {
            "trace": {"traceEvents": [{"name": "step", "ph": "X", "ts": 1, "dur": 2, "pid": 1, "tid": 1}]},
            "events": 1,
        }

    def _cancel(self, number: int) -> dict[str, Any]:
        return {"done": f"task {number} is cancelled"}

    def find(self, kind: str, message: str) -> None:
        """Add a finding."""
        evidence = {"lasted_s": 0.32, "stack": ["app.py:41 in render", "app.py:88 in handle_request"]}
        head = {"kind": kind, "message": message, "site": place("handle_request"), "task": "handle_request-7"}
        when = {"loop": "main", "since_s": time.monotonic(), "wall_time_s": time.time()}
        self.findings.append({**head, **when, "evidence": evidence})


class FakeSource:
    """Fake processes as the page's source."""

    def __init__(self, *processes: FakeProcess) -> None:
        self.processes = {process.pid: process for process in processes}

    def targets(self) -> list[ProcessTarget]:
        return [ProcessTarget(process.pid, process.number) for process in self.processes.values()]

    def ask(self, pid: int, command: str, *, within_s: float, **arguments: Any) -> dict[str, Any]:
        process = self.processes.get(pid)
        if process is None:
            raise ProcessLookupError(f"process {pid} has ended")
        return process.answer(command, arguments)
