"""Shared memory: blocks that never overlap, and what is lent is known to be kept or free."""

import gc
import os

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from penstock.executors.processes.shared_memory import Arena, Extents, LentBlocks, new_memory


class ExtentsAgainstAModel(RuleBasedStateMachine):
    """The model: the set of taken ranges."""

    FIRST, END = 4096, 4096 + 64 * 40

    def __init__(self):
        super().__init__()
        self.extents = Extents(self.FIRST, self.END)
        self.taken = []

    @rule(size=st.integers(1, 64 * 15))
    def take(self, size):
        offset = self.extents.take(size)
        if offset is not None:
            assert self.FIRST <= offset <= self.END - size
            assert all(offset + size <= other or other + length <= offset for other, length in self.taken)
            self.taken.append((offset, size))
        else:
            rounded = -(-size // 64) * 64
            assert all(b - a < rounded for a, b in self.gaps())

    def gaps(self):
        edges = [(o, o + -(-s // 64) * 64) for o, s in sorted(self.taken)]
        starts = [self.FIRST, *(end for _, end in edges)]
        return zip(starts, [*(start for start, _ in edges), self.END], strict=True)

    @precondition(lambda self: self.taken)
    @rule(data=st.data())
    def free(self, data):
        index = data.draw(st.integers(0, len(self.taken) - 1))
        self.extents.free(*self.taken.pop(index))

    @invariant()
    def what_is_taken_is_counted(self):
        assert self.extents.taken_bytes == sum(-(-size // 64) * 64 for _, size in self.taken)

    def teardown(self):
        for block in self.taken:
            self.extents.free(*block)
        assert self.extents.take(self.END - self.FIRST) == self.FIRST


TestExtents = ExtentsAgainstAModel.TestCase
TestExtents.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


def test_two_mappings_see_the_same_bytes_and_unmap_with_something_lent():
    fd = new_memory(100_000)
    ours, theirs = Arena(fd), Arena(fd)
    os.close(fd)
    offset = ours.to_worker[0]
    ours.put(offset, b"hello")
    block = theirs.lend(offset, 5)
    assert bytes(block) == b"hello"
    ours.close()
    theirs.close()
    assert bytes(block) == b"hello"


def test_the_areas_do_not_overlap_and_may_be_empty():
    fd = new_memory(0)
    arena = Arena(fd)
    os.close(fd)
    assert arena.to_worker[0] == arena.to_worker[1] == arena.from_worker[0] == arena.from_worker[1]
    assert Extents(*arena.to_worker).take(1) is None
    arena.close()


def test_lent_tells_whether_a_block_is_kept_and_when_it_goes():
    fd = new_memory(100_000)
    arena = Arena(fd)
    os.close(fd)
    freed = []
    lent = LentBlocks()
    kept, dropped = (lent.add(arena.lend(offset, 64)) for offset in (4096, 8192))
    view = memoryview(kept)
    del dropped, kept
    assert lent.are_kept(lambda: freed.append(1))
    assert freed == []
    del view
    gc.collect()
    assert freed == [1]
    assert not LentBlocks().are_kept(freed.clear)
    arena.close()


def test_trimmed_memory_reads_as_zeros():
    fd = new_memory(1_000_000)
    arena = Arena(fd)
    os.close(fd)
    offset = arena.to_worker[0]
    arena.put(offset, b"x" * 400_000)
    arena.trim()
    assert bytes(arena.view(offset, 400_000)) == bytes(400_000)
    arena.close()
