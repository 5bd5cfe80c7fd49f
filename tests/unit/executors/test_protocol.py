"""Frames out of a stream however it is cut, and pickles that come apart and together again."""

import itertools
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.core_source import plain
from penstock.executors.processes import pickling
from penstock.executors.processes.pickling import LARGE_BYTES, Pickled, dump, dump_function, load
from penstock.executors.processes.protocol import RESULT, FrameReader, lay_out, unpack
from tests.unit.executors import calls


@pytest.mark.parametrize("reader", [FrameReader, plain("workers", "frames").FrameReader], ids=["chosen", "plain"])
@given(st.lists(st.binary(max_size=90), max_size=8), st.lists(st.integers(1, 60), min_size=1))
def test_frames_come_out_whole_however_the_stream_is_cut(reader, bodies, cuts):
    stream = b"".join(RESULT.pack(len(body), n, 0, 0, 0, 0, 0) + body for n, body in enumerate(bodies))
    frames, found, position = reader(RESULT), [], 0
    for cut in itertools.cycle(cuts):
        if position >= len(stream):
            break
        for head, data, start, end in frames.feed(stream[position : position + cut]):
            found.append((head[1], data[start:end]))
        position += cut
    assert found == list(enumerate(bodies))


@pytest.mark.parametrize("room", [0, 1, 10**9])
def test_content_comes_back_by_memory_or_by_frame(room):
    memory, top = bytearray(4_000_000), [0]

    def take(size):
        if (top[0] and room == 1) or not room:
            return None
        top[0] += size
        return top[0] - size

    def put(offset, data):
        memory[offset : offset + len(data)] = data

    item = [b"a" * LARGE_BYTES, bytearray(b"b" * LARGE_BYTES), "c" * LARGE_BYTES]
    item.append(pickle.PickleBuffer(b"d" * LARGE_BYTES))
    content = lay_out(dump(item), take, put)
    frame = b"head" + b"".join(map(bytes, content.parts))
    view = memoryview(memory)
    parts = unpack(
        frame, 4, len(frame), content.buffer_count, lambda o, n: view[o : o + n], lambda o, n: bytes(view[o : o + n])
    )
    found = load(*parts)
    assert found[:3] == item[:3]
    assert [type(each) for each in found[:3]] == [bytes, bytearray, str]
    assert bytes(found[3]) == b"d" * LARGE_BYTES
    assert content.inband_bytes + content.shared_bytes > 4 * LARGE_BYTES
    assert bool(content.blocks) == bool(room)


@pytest.mark.parametrize("kind", [bytes, bytearray])
@pytest.mark.parametrize("size", [LARGE_BYTES - 1, LARGE_BYTES])
def test_what_was_one_object_is_one_again_and_travels_once(kind, size):
    item = kind(size)
    pickled = dump([item, {"again": item}, kind(size)])
    assert pickled.size_bytes < 2 * size + 1000
    first, deep, other = load(pickled.text, [(type(each), each) for each in pickled.bytes_like])
    assert deep["again"] is first
    assert other is not first
    assert (type(first), first) == (kind, item)


def test_small_things_are_one_pickle():
    pickled = dump((1, "two", b"three", [4.0]))
    assert pickled.is_small
    assert load(pickled.text) == (1, "two", b"three", [4.0])


def test_a_plain_function_is_pickled_once_and_others_each_time():
    assert dump_function(calls.add) is dump_function(calls.add)
    assert pickle.loads(dump_function(calls.add)) is calls.add
    assert dump_function("abc".upper) is None
    assert dump_function(len) == pickle.dumps(len, 5)


def test_a_pickle_keeps_nothing_alive():
    item = bytearray(LARGE_BYTES)
    pickled = dump([item])
    assert isinstance(pickled, Pickled)
    del pickled
    item.extend(b"x")  # BufferError if somebody still had a view of it


def test_the_culprit_is_found_behind_a_cycle():
    loop = {"name": "x"}
    loop["self"] = loop
    loop["bad"] = calls.make_a_lock()
    error = pickling.fault("it", loop, TypeError("lock"))
    assert "['bad']['state'][1]" in str(error)
