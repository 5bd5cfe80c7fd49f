"""The addresses of the page: its files, the login, the stream of states, and the questions to processes."""

from __future__ import annotations

import json
import threading
import time
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from penstock.errors import PenstockError
from penstock.monitor.page.events import state_events
from penstock.monitor.page.request import BadRequest
from penstock.monitor.page.sampler import MERGED
from penstock.monitor.page.server import Reply
from penstock.monitor.page.state import page_state

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from penstock.monitor.page.access import PageAccess
    from penstock.monitor.page.request import PageRequest
    from penstock.monitor.page.sampler import PageSampler

__all__ = ["PageRoutes", "page_files"]

Answer = dict[str, Any]
STATIC = Path(__file__).parent / "static"
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
}
# the longest wait for a process
ANSWER_S = 5.0
# open pages, each with a thread; traces at a time, each a burden for its process
MOST_STREAMS, MOST_TRACES = 16, 2
# the bound of the attach socket
LONGEST_TRACE_S = 60.0
# beyond a trace's own time
TRACE_GRACE_S = 15.0
# a wrong token costs its client this much
WRONG_TOKEN_S = 0.5
# rows of one answer
MOST_TASKS, MOST_FINDINGS = 1000, 200
SORTS = ("age", "running", "ready", "waiting", "steps", "number")


@lru_cache
def page_files() -> dict[str, Path]:
    """Return the files of the page by their paths."""
    files = [path for path in STATIC.rglob("*") if path.suffix in TYPES and path.is_file()]
    return {f"/{path.relative_to(STATIC).as_posix()}": path for path in files}


class PageRoutes:
    """The answers of the page. `handle` is called from several threads."""

    def __init__(self, sampler: PageSampler, access: PageAccess) -> None:
        self._sampler, self._access = sampler, access
        self._streams = threading.BoundedSemaphore(MOST_STREAMS)
        self._traces = threading.BoundedSemaphore(MOST_TRACES)
        self._gets: dict[str, Callable[[PageRequest], Reply]] = {
            "/api/events": self._events,
            "/api/tasks": self._tasks,
            "/api/task": self._task,
            "/api/graph": self._graph,
            "/api/stacks": self._stacks,
            "/api/findings": self._findings,
            "/api/trace": self._trace,
        }
        self._posts: dict[str, Callable[[PageRequest], Reply]] = {
            "/api/cancel": self._cancel,
            "/api/gc": self._collect,
            "/api/set-limit": self._set_limit,
        }

    def handle(self, request: PageRequest) -> Reply:
        """Return the reply to a request. Raises BadRequest."""
        self._access.check_host(request)
        if request.method == "GET" and not request.path.startswith("/api/"):
            return _file(request.path)
        self._access.check_same_site(request)
        if request.method == "POST" and not request.headers.get("content-type", "").startswith("application/json"):
            raise BadRequest(415, "a body is application/json")
        if request.path == "/login":
            return self._login(request)
        self._access.check_token(request)
        routes = self._gets if request.method == "GET" else self._posts
        if request.path not in routes:
            other = self._posts if request.method == "GET" else self._gets
            raise BadRequest(405 if request.path in other else 404, "there is no such page")
        return routes[request.path](request)

    def _login(self, request: PageRequest) -> Reply:
        given = _json_body(request).get("token")
        if self._access.token is not None and not (isinstance(given, str) and self._access.is_token(given)):
            time.sleep(WRONG_TOKEN_S)
            raise BadRequest(401, "this is not the token")
        cookie = f"{self._access.cookie_name}={self._access.session()}; Path=/; HttpOnly; SameSite=Strict"
        return Reply(204, headers=(("Set-Cookie", cookie),))

    # --- from the history

    def _events(self, request: PageRequest) -> Reply:
        scope = _scope(request)
        if not self._streams.acquire(blocking=False):
            raise BadRequest(503, "too many pages are open")

        def state() -> Answer:
            return page_state(self._sampler, scope)

        def finish() -> None:
            self._sampler.unwatch()
            self._streams.release()

        self._sampler.watch()
        return Reply(content_type="text/event-stream", chunks=state_events(self._sampler, scope, state), finish=finish)

    def _findings(self, request: PageRequest) -> Reply:
        return _json({"findings": self._sampler.findings(_scope(request))[:MOST_FINDINGS]})

    # --- from the process

    def _tasks(self, request: PageRequest) -> Reply:
        group = request.query.get("group", "")
        if group in ("site", "stack"):
            return self._ask(request, "tasks", group=group)
        arguments = {
            "sort": _one_of(request, "sort", SORTS),
            "descending": request.query.get("descending", "1") == "1",
            "filter": request.query.get("filter", "")[:200],
            "limit": _whole(request, "limit", most=MOST_TASKS, default=100),
        }
        return self._ask(request, "tasks", **arguments)

    def _task(self, request: PageRequest) -> Reply:
        return self._ask(request, "task", number=_whole(request, "number"))

    def _graph(self, request: PageRequest) -> Reply:
        return self._ask(request, "graph")

    def _stacks(self, request: PageRequest) -> Reply:
        return self._ask(request, "stacks")

    def _trace(self, request: PageRequest) -> Reply:
        seconds = float(_whole(request, "seconds", most=int(LONGEST_TRACE_S), default=5))
        with _room(self._traces, "two traces are being recorded already"):
            answer = self._answer(request, "trace", within_s=seconds + TRACE_GRACE_S, seconds=seconds)
        name = f"penstock-{_pid(request)}-{time.strftime('%Y%m%d-%H%M%S')}.json"
        headers = (("Content-Disposition", f'attachment; filename="{name}"'),)
        return Reply(body=json.dumps(answer.get("trace")).encode(), headers=headers)

    # --- actions: the process itself refuses them unless its config allows them

    def _cancel(self, request: PageRequest) -> Reply:
        return self._ask(request, "cancel", number=_json_body(request).get("number"))

    def _collect(self, request: PageRequest) -> Reply:
        return self._ask(request, "gc")

    def _set_limit(self, request: PageRequest) -> Reply:
        body = _json_body(request)
        return self._ask(request, "set-limit", gate=body.get("gate"), limit=body.get("limit"))

    def _ask(self, request: PageRequest, command: str, **arguments: Any) -> Reply:
        return _json(self._answer(request, command, **arguments))

    def _answer(self, request: PageRequest, command: str, *, within_s: float = ANSWER_S, **arguments: Any) -> Answer:
        pid = _pid(request)
        series = self._sampler.of(pid)
        if pid == MERGED or series is None:
            raise BadRequest(404, f"the page shows no process {pid}")
        try:
            return self._sampler.source.ask(pid, command, within_s=within_s, **arguments)
        except TimeoutError:
            raise BadRequest(504, f"process {pid} did not answer in {within_s:g} s") from None
        except PenstockError as error:
            raise BadRequest(403 if command in ("cancel", "gc", "set-limit") else 400, str(error)) from None
        except OSError as error:
            raise BadRequest(502, f"process {pid} cannot be asked: {error}") from None


def _file(path: str) -> Reply:
    found = page_files().get("/index.html" if path == "/" else path)
    if found is None:
        raise BadRequest(404, "there is no such page")
    return Reply(content_type=TYPES[found.suffix], body=found.read_bytes())


def _json(answer: Any) -> Reply:
    return Reply(body=json.dumps(answer, separators=(",", ":")).encode())


def _json_body(request: PageRequest) -> Answer:
    try:
        found = json.loads(request.body or b"{}")
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise BadRequest(400, "the body is no JSON object")
    return found


def _scope(request: PageRequest) -> int:
    return _whole(request, "scope", default=MERGED)


def _pid(request: PageRequest) -> int:
    return _whole(request, "pid")


def _whole(request: PageRequest, name: str, *, most: int = 2**53, default: int | None = None) -> int:
    text = request.query.get(name)
    if text is None and default is not None:
        return default
    if text is None or not text.isascii() or not text.isdigit() or len(text) > 16 or int(text) > most:
        raise BadRequest(400, f"{name} is a whole number of {most} at most")
    return int(text)


def _one_of(request: PageRequest, name: str, allowed: Sequence[str]) -> str:
    text = request.query.get(name, allowed[0])
    if text not in allowed:
        raise BadRequest(400, f"{name} is one of {', '.join(allowed)}")
    return text


@contextmanager
def _room(semaphore: threading.BoundedSemaphore, refusal: str) -> Iterator[None]:
    if not semaphore.acquire(blocking=False):
        raise BadRequest(429, refusal)
    try:
        yield
    finally:
        semaphore.release()
