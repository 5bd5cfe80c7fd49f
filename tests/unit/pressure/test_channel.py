"""Tests of channels: watermarks, order, the end, and items that are neither lost nor duplicated."""

import asyncio
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from penstock.errors import ChannelClosed
from penstock.pressure import Channel, ChannelStatistics
from penstock.testing import explore
from tests.support.loops import BOTH
from tests.support.waiting import turns
from tests.unit.pressure.driving import cancelled


@pytest.mark.parametrize(("high", "low"), [(0, None), (4, 4), (4, -1), (-1, 0)])
def test_watermarks_that_hold_nothing_apart_are_refused(high: int, low: int | None) -> None:
    with pytest.raises(ValueError, match=f"high = {high}, low = .*: must be 0 <= low < high"):
        Channel(high, low)


async def test_items_come_out_in_their_order() -> None:
    channel: Channel[int] = Channel(4)

    async def produce() -> None:
        for item in range(20):
            await channel.send(item)
        channel.close()

    producer = asyncio.create_task(produce())
    assert [item async for item in channel] == list(range(20))
    await producer


async def test_senders_wait_from_high_until_low() -> None:
    channel: Channel[int] = Channel(4, 1)
    assert [channel.try_send(item) for item in range(5)] == [True] * 4 + [False]
    sending = [asyncio.create_task(channel.send(item)) for item in (10, 11)]
    for left in (3, 2):
        await channel.receive()
        await turns()
        assert (channel.statistics().queued, channel.statistics().senders_waiting) == (left, 2)
        assert not channel.try_send(99)
    await channel.receive()
    await asyncio.gather(*sending)
    assert [await channel.receive() for _ in range(3)] == [3, 10, 11]


async def test_sizes_are_counted_and_one_item_may_go_beyond() -> None:
    channel: Channel[bytes] = Channel(100, 50, size=len)
    await channel.send(b"x" * 60)
    await channel.send(b"y" * 500)
    assert not channel.try_send(b"")
    assert channel.statistics() == ChannelStatistics(
        queued=2, size=560, high=100, low=50, paused=True, closed=False,
        senders_waiting=0, receivers_waiting=0, sent=2, received=0,
    )  # fmt: skip
    await channel.receive()
    assert not channel.try_send(b"z")
    await channel.receive()
    assert channel.try_send(b"z")
    assert channel.statistics().size == 1


async def test_first_come_first_served_on_both_sides() -> None:
    channel: Channel[int] = Channel(1)
    got: list[tuple[int, int]] = []

    async def take(name: int) -> None:
        got.append((name, await channel.receive()))

    takers = [asyncio.create_task(take(name)) for name in range(4)]
    await turns()
    senders = [asyncio.create_task(channel.send(item)) for item in range(4)]
    await asyncio.gather(*takers, *senders)
    assert got == [(name, name) for name in range(4)]


async def test_no_receiver_overtakes_a_woken_one() -> None:
    channel: Channel[str] = Channel(2)
    first = asyncio.create_task(channel.receive())
    await turns()
    channel.try_send("first")
    channel.try_send("second")
    # the running task calls this before the woken one has run
    assert await channel.receive() == "second"
    assert await first == "first"


async def test_no_sender_overtakes_a_woken_one() -> None:
    channel: Channel[str] = Channel(2, 0)
    assert channel.try_send("a")
    assert channel.try_send("b")
    waiting = asyncio.create_task(channel.send("c"))
    await turns()
    assert [await channel.receive() for _ in range(2)] == ["a", "b"]
    assert not channel.try_send("late")
    # the running task calls this before the woken one has run
    await channel.send("d")
    await waiting
    assert [await channel.receive() for _ in range(2)] == ["c", "d"]


async def test_a_receiver_cancelled_at_the_hand_over_takes_nothing() -> None:
    channel: Channel[str] = Channel(2)
    first, second = (asyncio.create_task(channel.receive()) for _ in range(2))
    await turns()
    channel.try_send("item")
    first.cancel()
    await turns()
    assert first.cancelled()
    assert second.result() == "item"
    third = asyncio.create_task(channel.receive())
    await turns()
    channel.try_send("kept")
    await cancelled(third)
    assert await channel.receive() == "kept"


async def test_a_sender_cancelled_when_it_gets_its_place_sends_nothing() -> None:
    channel: Channel[str] = Channel(1)
    channel.try_send("before")
    first, second = (asyncio.create_task(channel.send(item)) for item in ("lost", "next"))
    await turns()
    assert await channel.receive() == "before"
    first.cancel()
    await turns()
    assert first.cancelled()
    assert second.done()
    assert await channel.receive() == "next"
    assert channel.statistics().size == 0


async def test_a_closed_channel_gives_what_it_has_and_ends() -> None:
    channel: Channel[int] = Channel(2)
    channel.try_send(1)
    channel.try_send(2)
    sending = asyncio.create_task(channel.send(3))
    await turns()
    channel.close()
    channel.close()
    assert channel.closed
    with pytest.raises(ChannelClosed, match="closed for sending"):
        await sending
    with pytest.raises(ChannelClosed):
        channel.try_send(4)
    assert [item async for item in channel] == [1, 2]
    with pytest.raises(ChannelClosed, match="closed and empty"):
        await channel.receive()


async def test_closing_ends_all_that_wait_to_receive() -> None:
    channel: Channel[int] = Channel(2)
    receiving = [asyncio.create_task(channel.receive()) for _ in range(3)]
    await turns()
    channel.try_send(1)
    channel.close()
    ends = await asyncio.gather(*receiving, return_exceptions=True)
    assert [type(end) for end in ends] == [int, ChannelClosed, ChannelClosed]


async def test_the_last_item_of_a_closed_channel_finds_another_if_its_receiver_is_cancelled() -> None:
    channel: Channel[str] = Channel(2)
    first, second = (asyncio.create_task(channel.receive()) for _ in range(2))
    await turns()
    channel.try_send("last")
    channel.close()
    first.cancel()
    assert await second == "last"


async def test_a_sender_with_a_place_that_did_not_use_it_before_the_close_sends_nothing() -> None:
    channel: Channel[str] = Channel(1)
    channel.try_send("before")
    sending = asyncio.create_task(channel.send("late"))
    await turns()
    assert await channel.receive() == "before"
    channel.close()
    with pytest.raises(ChannelClosed):
        await sending
    assert (channel.statistics().size, channel.statistics().queued) == (0, 0)


async def test_a_failure_is_the_end_that_both_sides_see() -> None:
    channel: Channel[int] = Channel(1)
    channel.try_send(1)
    sending = asyncio.create_task(channel.send(2))
    await turns()
    channel.fail(ZeroDivisionError("broken"))
    channel.fail(LookupError("later"))
    for sender in (sending, channel.send(3)):
        with pytest.raises(ZeroDivisionError, match="broken"):
            await sender
    got = []
    with pytest.raises(ZeroDivisionError, match="broken"):
        async for item in channel:
            got.append(item)
    assert got == [1]


async def test_a_size_function_that_raises_changes_nothing() -> None:
    channel: Channel[Any] = Channel(2, size=len)
    with pytest.raises(TypeError):
        await channel.send(5)
    with pytest.raises(TypeError):
        channel.try_send(5)
    assert (channel.statistics().size, channel.statistics().queued) == (0, 0)


def test_the_first_wait_binds_it_to_its_loop() -> None:
    channel: Channel[int] = Channel(1)

    async def wait() -> None:
        async with asyncio.timeout(0):
            await channel.receive()

    first, second = BOTH.values()
    with asyncio.Runner(loop_factory=first) as runner, pytest.raises(TimeoutError):
        runner.run(wait())
    with asyncio.Runner(loop_factory=second) as runner, pytest.raises(RuntimeError, match="different event loop"):
        runner.run(wait())


@pytest.mark.parametrize("end", ["close", "fail"])
def test_every_item_sent_is_received_once_wherever_a_task_is_cancelled(end: str) -> None:
    async def main() -> None:
        channel: Channel[int] = Channel(2, 0)
        sent: list[int] = []
        got: list[int] = []

        async def send(first: int) -> None:
            for item in range(first, first + 3):
                await channel.send(item)
                sent.append(item)

        async def receive() -> None:
            try:
                async for item in channel:
                    got.append(item)
            except ZeroDivisionError:
                assert end == "fail"

        receivers = [asyncio.create_task(receive()) for _ in range(2)]
        senders = [asyncio.create_task(send(number * 10)) for number in range(2)]
        await asyncio.wait([*senders, *receivers], timeout=1, return_when=asyncio.ALL_COMPLETED)
        if end == "close":
            channel.close()
        else:
            channel.fail(ZeroDivisionError())
        await asyncio.gather(*senders, *receivers, return_exceptions=True)
        for task in senders:
            assert task.cancelled() or task.exception() is None or all(one.cancelled() for one in receivers)
        await receive()
        assert sorted(got) == sorted(sent)
        statistics = channel.statistics()
        assert (statistics.size, statistics.sent, statistics.received) == (0, len(sent), len(got))
        assert statistics.senders_waiting == statistics.receivers_waiting == 0

    explore(main, seeds=range(8))


class Model(RuleBasedStateMachine):
    """A channel and a model, a list: any order of calls and cancellations, then all tasks run."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.SelectorEventLoop()
        self.channel: Channel[int] = Channel(5, 2, size=lambda item: item % 4)
        self.tasks: list[asyncio.Task[Any]] = []
        self.sent: list[int] = []
        self.got: list[int] = []
        self.next = 0

    def teardown(self) -> None:
        self.let_all_run()
        for task in self.tasks:
            task.cancel()
        self.let_all_run()
        self.loop.close()

    def start(self, coro: Any) -> None:
        self.tasks.append(self.loop.create_task(coro))

    async def _send(self, item: int) -> None:
        await self.channel.send(item)
        self.sent.append(item)

    async def _receive(self) -> None:
        self.got.append(await self.channel.receive())

    @rule(count=st.integers(1, 3))
    def send(self, count: int) -> None:
        for _ in range(count):
            self.next += 1
            self.start(self._send(self.next))

    @rule(count=st.integers(1, 3))
    def receive(self, count: int) -> None:
        for _ in range(count):
            self.start(self._receive())

    @rule()
    def try_send(self) -> None:
        self.next += 1
        try:
            if self.channel.try_send(self.next):
                self.sent.append(self.next)
        except ChannelClosed:
            assert self.channel.closed

    @precondition(lambda self: self.tasks)
    @rule(at=st.integers(0, 1000))
    def cancel(self, at: int) -> None:
        self.tasks[at % len(self.tasks)].cancel()

    @precondition(lambda self: self.next > 5)
    @rule()
    def close(self) -> None:
        self.channel.close()

    @rule()
    def one_turn(self) -> None:
        self.loop.call_soon(self.loop.stop)
        self.loop.run_forever()

    @rule()
    def let_all_run(self) -> None:
        for _ in range(30):
            self.one_turn()
        ended, self.tasks = [one for one in self.tasks if one.done()], [one for one in self.tasks if not one.done()]
        for task in ended:
            assert task.cancelled() or isinstance(task.exception(), ChannelClosed | None)
        now = self.channel.statistics()
        assert now.size == sum(item % 4 for item in set(self.sent) - set(self.got))
        assert now.queued == len(self.sent) - len(self.got)
        # no receiver waits while there is an item or after the end, and no sender while there is room
        assert not (now.receivers_waiting and now.queued)
        assert not (now.senders_waiting and not now.paused)
        assert not (now.closed and now.senders_waiting)
        assert not (now.closed and now.receivers_waiting)
        assert not (now.paused and now.size <= now.low)

    @invariant()
    def no_item_is_lost_or_doubled(self) -> None:
        now = self.channel.statistics()
        assert len(set(self.got)) == len(self.got)
        assert now.sent - now.received == now.queued
        assert now.size < now.high + 4


TestModel = Model.TestCase
TestModel.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
