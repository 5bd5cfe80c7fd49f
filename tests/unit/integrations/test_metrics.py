"""/metrics: as an ASGI application, and on a port of its own that answers while the loop is blocked."""

import asyncio
import sys
import threading

import pytest
from prometheus_client import CollectorRegistry, Counter

import penstock
from penstock.integrations.metrics.exporter import MetricsApp, metrics_app, process_sources, serve_metrics
from penstock.tasks.observers import registry
from tests.support.clients import ask_http
from tests.unit.telemetry.figures import loop_of, site_of

OPENMETRICS = b"application/openmetrics-text; version=1.0.0"


class Observer:
    """An observer with the methods that exporters call."""

    def __init__(self, name):
        self.name = name

    def statistics(self):
        return loop_of(self.name, created=9)

    def sites(self):
        return [site_of(1, 9)]


@pytest.fixture
def observed():
    """Yield a loop that does not run, and its observer."""
    loop = asyncio.new_event_loop()
    registry.register(loop, Observer("observed"))
    yield loop
    registry.unregister(loop)
    loop.close()


def ask(app, path="/metrics", method="GET", root_path="", accept=b"text/plain"):
    """Return the status, headers and body that the application sends."""
    sent = []
    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "root_path": root_path,
        "headers": [(b"accept", accept)],
    }

    async def send(message):
        sent.append(message)

    asyncio.run(app(scope, None, send))
    start, body = sent
    return start["status"], dict(start["headers"]), body["body"].decode()


def test_metrics_are_answered_with_what_the_observers_know(observed):
    status, headers, body = ask(metrics_app)
    assert (status, headers[b"content-type"].partition(b";")[0]) == (200, b"text/plain")
    labels = 'asyncio_eventloop_implementation="penstock",asyncio_eventloop_name="observed"'
    assert f"asyncio_task_created_total{{{labels}}} 9.0" in body
    assert 'asyncio_task_site="app:work1"' in body
    assert int(headers[b"content-length"]) == len(body.encode())


def test_the_accept_header_chooses_openmetrics():
    _, headers, body = ask(metrics_app, accept=OPENMETRICS)
    assert headers[b"content-type"].startswith(b"application/openmetrics-text")
    assert body.endswith("# EOF\n")


@pytest.mark.parametrize(
    ("path", "root_path", "status"),
    [
        ("/metrics", "", 200),
        ("/metrics/", "", 200),
        ("/", "", 404),
        ("/metricsx", "", 404),
        ("/metrics", "/metrics", 200),
        ("/", "/metrics", 200),
        ("/metrics/", "/metrics", 200),
        ("/inner/metrics", "/inner", 200),
        ("/inner/else", "/inner", 404),
    ],
)
def test_it_answers_at_its_path_and_wherever_it_is_mounted(path, root_path, status):
    assert ask(metrics_app, path, root_path=root_path)[0] == status


def test_other_methods_are_told_what_is_allowed():
    status, headers, _ = ask(metrics_app, method="POST")
    assert (status, headers[b"allow"]) == (405, b"GET, HEAD")
    status, headers, body = ask(metrics_app, method="HEAD")
    assert (status, body) == (200, "")
    assert int(headers[b"content-length"]) > 0


def test_a_registry_of_ones_own_is_shown_in_its_place():
    own = CollectorRegistry()
    Counter("mine", "Mine.", registry=own).inc()
    body = ask(MetricsApp(own))[2]
    assert "mine_total 1.0" in body
    assert "asyncio_" not in body


def test_the_text_is_not_written_in_the_loops_thread():
    threads = []

    class Watched:
        def collect(self):
            threads.append(threading.current_thread())
            return []

    own = CollectorRegistry(auto_describe=False)
    own.register(Watched())
    ask(MetricsApp(own))
    assert threads
    assert threading.current_thread() not in threads


def test_it_takes_part_in_the_servers_start_and_end():
    told, sent = iter(["lifespan.startup", "lifespan.shutdown"]), []

    async def receive():
        return {"type": next(told)}

    async def send(message):
        sent.append(message["type"])

    asyncio.run(metrics_app({"type": "lifespan"}, receive, send))
    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]


def test_a_websocket_is_refused():
    sent = []

    async def send(message):
        sent.append(message["type"])

    asyncio.run(metrics_app({"type": "websocket", "path": "/metrics"}, None, send))
    assert sent == ["websocket.close"]


# lanes


def lanes_seen():
    return {loop: [lane.name for lane in lanes] for loop, lanes in process_sources().lanes().items()}


def test_the_lanes_of_a_loop_go_by_its_observers_name():
    async def main():
        await penstock.to_thread(int)
        registry.register(asyncio.get_running_loop(), Observer("named"))
        return lanes_seen()

    assert penstock.run(main())["named"] == ["io"]


def test_the_lanes_of_a_loop_without_an_observer_go_by_its_kind():
    async def main():
        await penstock.to_thread(int)
        return lanes_seen()

    assert asyncio.run(main())["asyncio"] == ["io"]


# a port of its own


def test_the_port_answers_while_the_loop_is_blocked(observed):
    with serve_metrics(0) as server:
        blocked, answered = threading.Event(), threading.Event()

        async def block():
            blocked.set()
            return answered.wait(20)

        loop = threading.Thread(target=lambda: results.append(penstock.run(block())))
        results = []
        loop.start()
        assert blocked.wait(10)
        status, body = ask_http(server.port, "/metrics")
        answered.set()
        loop.join()
    assert results == [True]
    assert status == 200
    assert 'asyncio_eventloop_name="observed"' in body


def test_a_closed_server_gives_its_port_back():
    server = serve_metrics(0)
    port = server.port
    server.close()
    server.close()
    with serve_metrics(port) as again:
        assert ask_http(again.port, "/metrics")[0] == 200


def test_a_port_in_use_is_one_clear_error():
    with (
        serve_metrics(0) as server,
        pytest.raises(OSError, match=rf"cannot serve metrics on 127\.0\.0\.1:{server.port}"),
    ):
        # the reuse of addresses, which http.server asks for, does not extend to a port that is listened on
        serve_metrics(server.port)


def test_without_prometheus_client_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    with pytest.raises(ImportError, match=r"pip install 'penstock\[prometheus\]'"):
        serve_metrics(0)
