"""The stream of states: its history, its points, the faster samples while it is open, and its end."""

import json
import socket
import time
from collections.abc import Iterator
from typing import Any

from tests.support.monitored import FakeProcess
from tests.support.served_page import ServedPage, served
from tests.support.waiting import wait_until


def events(page: ServedPage, scope: int = 0) -> Iterator[tuple[str, Any]]:
    """Yield the name and the data of each event; the end of the iterator closes the stream."""
    head = f"GET /api/events?scope={scope} HTTP/1.1\r\nHost: localhost:{page.port}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", page.port), timeout=20) as sock, sock.makefile("rb") as stream:
        sock.sendall(head.encode())
        assert stream.readline().startswith(b"HTTP/1.1 200")
        name = ""
        for line in stream:
            if line.startswith(b"event: "):
                name = line[7:].strip().decode()
            elif line.startswith(b"data: "):
                yield name, json.loads(line[6:])


def states(page: ServedPage, scope: int = 0) -> Iterator[Any]:
    return (data for name, data in events(page, scope) if name == "state")


def test_the_history_comes_first_and_then_states_with_new_points() -> None:
    with served() as page:
        wait_until(lambda: page.sampler.history(0))
        stream = events(page)
        name, data = next(stream)
        assert name == "history"
        last_s = data["points"][-1]["at_s"]
        found = []
        for name, data in stream:
            assert name == "state"
            if data["point"]:
                found.append(data["point"]["at_s"])
            if len(found) == 3:
                break
        stream.close()  # type: ignore[attr-defined]
        assert last_s < found[0] < found[1] < found[2]


def test_a_page_that_is_open_makes_samples_faster_and_one_that_is_closed_costs_nothing() -> None:
    with served() as page:
        stream = states(page)
        next(stream)
        assert page.sampler.is_watched
        stream.close()  # type: ignore[attr-defined]
        wait_until(lambda: not page.sampler.is_watched)


def test_more_streams_than_the_bound_are_refused_and_their_ends_make_room() -> None:
    with served() as page:
        streams = [events(page) for _ in range(16)]
        for stream in streams:
            next(stream)
        assert page.send("/api/events").status == 503
        for stream in streams:
            stream.close()  # type: ignore[attr-defined]
        wait_until(lambda: not page.sampler.is_watched)
        stream = events(page)
        assert next(stream)[0] == "history"
        stream.close()  # type: ignore[attr-defined]


def test_workers_are_seen_merged_and_apart() -> None:
    with served(FakeProcess(11, 1), FakeProcess(12, 2)) as page:
        merged = next(state for state in states(page) if state["point"])
        apart = next(state for state in states(page, 11) if state["point"])
        assert [row["number"] for row in merged["processes"]] == [1, 2]
        assert merged["details"] is None
        assert merged["point"]["live"] > apart["point"]["live"]
        assert apart["details"]["gates"]


def test_a_blocked_loop_is_the_first_line_and_its_delay_grows() -> None:
    process = FakeProcess(11, blocked_s=0.4)
    with served(process) as page:
        state = next(state for state in states(page, 11) if state["wrong"])
        assert "render" in state["wrong"][0]["text"]
        assert state["wrong"][0]["next"]
        process.blocked_s = 2.5
        assert next(state for state in states(page, 11) if state["point"] and state["point"]["p99_s"] == 2.5)


def test_a_held_gil_is_said_with_what_cannot_be_read() -> None:
    process = FakeProcess(11)
    with served(process) as page:
        process.holds_gil, process.blocked_s = True, 3.0
        state = next(state for state in states(page, 11) if state["notices"] and state["point"])
        assert "the GIL is held for 3.0 s" in state["notices"][0]
        assert "tasks, lanes, gates" in state["notices"][0]
        assert state["point"]["partial"]
        assert state["point"]["live"] is None
        assert state["processes"][0]["state"] == "partial"
        assert state["details"]["gates"]


def test_the_end_of_the_process_is_said_and_its_charts_stay() -> None:
    with served(FakeProcess(11)) as page:
        page.source.processes.clear()
        state = next(state for state in states(page, 11) if state["ended"])
        assert "has ended" in state["notices"][0]
        assert page.sampler.history(11)


def test_a_worker_that_is_replaced_leaves_the_list_and_the_new_one_is_sampled() -> None:
    with served(FakeProcess(11, 1), FakeProcess(12, 2)) as page:
        page.source.processes = {11: page.source.processes[11], 13: FakeProcess(13, 2)}
        wait_until(lambda: page.sampler.history(13))
        state = next(states(page))
        assert [(row["pid"], row["state"]) for row in state["processes"]] == [
            (11, "running"),
            (13, "running"),
            (12, "ended"),
        ]
        assert not state["ended"]


def test_a_silent_process_is_said_and_the_others_go_on() -> None:
    silent = FakeProcess(12, 2, is_silent=True)
    with served(FakeProcess(11, 1), silent) as page:
        state = next(state for state in states(page) if state["processes"][1]["state"] == "silent")
        assert "Worker 2 (12) does not answer" in state["notices"][0]
        assert state["processes"][0]["state"] == "running"


def test_findings_come_with_their_process() -> None:
    process = FakeProcess(11)
    with served(process) as page:
        process.find("stall", "blocked for 320 ms")
        wait_until(lambda: page.send("/api/findings").data["findings"])
        assert page.send("/api/findings?scope=11").data["findings"][0]["pid"] == 11
        assert page.send("/api/findings?scope=12").data["findings"] == []
        time.sleep(0)
