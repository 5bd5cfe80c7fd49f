"""The table of claims: exactly one side gets a job, whatever the order; and what else a worker does natively."""

import mmap
import os
import socket
import threading
import time

import pytest

claims = pytest.importorskip("penstock._core.workers.claims")


@pytest.fixture
def board():
    memory = mmap.mmap(-1, 4096)
    made = claims.ClaimTable(memory)
    yield made
    made.release()
    memory.close()


def test_an_offered_job_is_taken_once(board):
    board.offer(7)
    assert board.take(7)
    assert not board.take(7)
    assert not board.revoke(7)


def test_a_revoked_job_is_not_taken(board):
    board.offer(7)
    assert board.revoke(7)
    assert not board.take(7)
    assert not board.revoke(7)


def test_a_job_never_offered_is_nobodys(board):
    assert not board.take(3)
    assert not board.revoke(3)


def test_a_slot_serves_one_job_after_another(board):
    for number in range(1, 4 * claims.SLOTS, claims.SLOTS):
        board.offer(number)
        assert not board.take(number + claims.SLOTS)
        assert board.take(number)


def test_of_two_who_want_a_job_at_once_one_gets_it(board):
    rounds, taken, revoked = 20_000, [], []
    for number in range(1, claims.SLOTS):
        board.offer(number)

    def race(claim, won):
        for number in range(1, rounds):
            if claim(number):
                won.append(number)
            if claim == board.take:
                board.offer(number + claims.SLOTS - 1)

    sides = [threading.Thread(target=race, args=pair) for pair in ((board.take, taken), (board.revoke, revoked))]
    for side in sides:
        side.start()
    for side in sides:
        side.join()
    assert not set(taken) & set(revoked)
    assert len(taken) == len(set(taken))


def test_the_two_words_are_shared_by_boards_over_the_same_memory():
    fd = os.memfd_create("test")
    os.ftruncate(fd, 4096)
    memories = [mmap.mmap(fd, 4096) for _ in range(2)]
    os.close(fd)
    first, second = map(claims.ClaimTable, memories)
    first.interrupted, second.results_read = 2**63, 5
    assert (second.interrupted, first.results_read) == (2**63, 5)
    first.offer(9)
    assert second.take(9)
    first.release()
    second.release()
    for memory in memories:
        memory.close()


def test_a_board_needs_enough_memory_and_is_not_used_after_its_release(board):
    with pytest.raises(ValueError, match=f"a claim table needs {claims.ClaimTable.BYTES} bytes, not 8"):
        claims.ClaimTable(bytearray(8))
    with pytest.raises(BufferError):
        claims.ClaimTable(bytes(4096))
    board.release()
    with pytest.raises(ValueError, match="the claim table is released"):
        board.offer(1)


def test_large_bytes_are_collected_in_order_and_nothing_else():
    large = claims.LargeBytes(10)
    items = [b"x" * 9, b"x" * 10, "y" * 100, bytearray(11), type("B", (bytes,), {})(b"z" * 20), [b"x" * 20]]
    assert [large.persistent_id(item) for item in items] == [None, 0, None, 1, None, None]
    assert large.found == [b"x" * 10, bytearray(11)]


def test_receive_takes_what_is_there_and_looks_no_longer_than_told():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert claims.receive(ours.fileno(), 0) is None
        began = time.monotonic()
        assert claims.receive(ours.fileno(), 20_000_000) is None
        assert time.monotonic() - began >= 0.02
        theirs.send(b"abc")
        assert claims.receive(ours.fileno(), 0) == b"abc"
        threading.Timer(0.01, theirs.send, (b"later",)).start()
        assert claims.receive(ours.fileno(), 10_000_000_000) == b"later"
        theirs.close()
        assert claims.receive(ours.fileno(), 0) == b""
        assert claims.receive(-1, 0) is None
