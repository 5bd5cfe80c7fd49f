"""The drain of uvicorn's connections: by their state, the kernel's unread bytes, and their idle time."""

import asyncio
import socket
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("uvicorn")

from penstock.integrations.uvicorn.drain import (
    CLOSE,
    PARTIAL_FACTOR,
    _ClosingConnections,
    close_after_responses,
    close_connections,
)


class Connection:
    """A connection of uvicorn's with the attributes that a drain uses, over a real socket."""

    def __init__(self, sock: socket.socket) -> None:
        self.transport = SimpleNamespace(is_closing=lambda: self.ended, get_extra_info=lambda name: sock)
        self.cycle: Any = None
        self.ended = False

    def shutdown(self) -> None:
        self.ended = True


def cycle(*, started: bool = False, complete: bool = False) -> SimpleNamespace:
    return SimpleNamespace(response_started=started, response_complete=complete, default_headers=[], scope={})


@pytest.fixture
def pair() -> Any:
    ours, peer = socket.socketpair()
    with ours, peer:
        yield Connection(ours), peer


def assert_closed_between(closing: _ClosingConnections, connection: Any, open_s: float, closed_s: float) -> None:
    closing.check({connection}, open_s)
    assert not connection.ended
    closing.check({connection}, closed_s)
    assert connection.ended


def test_an_idle_connection_ends_after_a_quiet_moment_and_not_before(pair: Any) -> None:
    connection, _ = pair
    closing = _ClosingConnections(0.5)
    closing.check({connection}, 10.0)
    assert_closed_between(closing, connection, 10.4, 10.5)


def test_a_request_that_the_kernel_has_makes_a_connection_busy(pair: Any) -> None:
    connection, peer = pair
    closing = _ClosingConnections(0.5)
    closing.check({connection}, 10.0)
    peer.sendall(b"GET")
    closing.check({connection}, 10.6)
    assert not connection.ended


def test_the_moment_begins_anew_when_an_answer_is_complete(pair: Any) -> None:
    connection, _ = pair
    closing = _ClosingConnections(0.5)
    closing.check({connection}, 10.0)
    connection.cycle = cycle(started=True)
    closing.check({connection}, 10.6)
    assert not connection.ended and closing.has_only_busy({connection})
    connection.cycle.response_complete = True
    closing.check({connection}, 20.0)
    assert_closed_between(closing, connection, 20.4, 20.5)


def test_a_request_that_has_come_in_part_has_more_time(pair: Any) -> None:
    connection, _ = pair
    connection.parser, connection.scope = object(), {"type": "http"}
    closing = _ClosingConnections(0.5)
    closing.check({connection}, 10.0)
    assert_closed_between(closing, connection, 10.6, 10.0 + 0.5 * PARTIAL_FACTOR)


def test_a_protocol_without_requests_is_ended_at_once(pair: Any) -> None:
    connection, _ = pair
    del connection.cycle
    _ClosingConnections(0.5).check({connection}, 10.0)
    assert connection.ended


def test_answers_that_have_not_begun_are_the_last(pair: Any) -> None:
    waiting, begun = Connection(pair[1]), Connection(pair[1])
    waiting.cycle, begun.cycle = cycle(), cycle(started=True)
    state = SimpleNamespace(default_headers=[(b"server", b"x")], connections={waiting, begun})
    close_after_responses(SimpleNamespace(config=SimpleNamespace(), server_state=state))  # type: ignore[arg-type]
    assert state.default_headers == [(b"server", b"x"), CLOSE]
    assert (waiting.cycle.default_headers, begun.cycle.default_headers) == ([CLOSE], [])


def test_a_connection_in_its_handshake_is_waited_for() -> None:
    # as asyncio's server counts what is attached to it, before 3.13
    accepting = SimpleNamespace(_active_count=1)
    state = SimpleNamespace(connections=set())
    server: Any = SimpleNamespace(server_state=state, servers=[accepting], force_exit=False)

    async def main() -> None:
        ending = asyncio.create_task(close_connections(server, float("inf"), 600))
        await asyncio.sleep(0)
        assert not ending.done()
        accepting._active_count = 0
        await ending

    asyncio.run(main())
