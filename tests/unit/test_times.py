"""Times in buckets: quantiles within 3 %, fixed memory, and the native histogram the same as the plain one."""

import json
import random
import sys
from dataclasses import asdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.times import BUCKETS, LONGEST_NS, PlainHistogram, Times, merged, since, taken, upper_ns

try:
    from penstock._core.tasks.histogram import Histogram as NativeHistogram
except ImportError:  # not built
    NativeHistogram = None

needs_native = pytest.mark.skipif(NativeHistogram is None, reason="the extension is not built")
both = pytest.mark.parametrize("made", [PlainHistogram, pytest.param(NativeHistogram, marks=needs_native)])


def middle_ns(bucket):
    return ((upper_ns(bucket - 1) if bucket else 0) + upper_ns(bucket) - 1) / 2


def of(made, *times_ns):
    histogram = made()
    for ns in times_ns:
        histogram.add(ns)
    return taken(histogram)


@both
def test_quantiles_are_within_three_percent(made):
    source = random.Random(5)
    given_ns = [int(source.lognormvariate(13, 2)) for _ in range(5000)]
    found, ranked = of(made, *given_ns), sorted(given_ns)
    for share, seconds in ((0.5, found.p50_s), (0.9, found.p90_s), (0.99, found.p99_s)):
        assert seconds == pytest.approx(ranked[int(share * 5000) - 1] / 1e9, rel=0.032)
    assert found.count == 5000
    assert found.mean_s == pytest.approx(sum(given_ns) / 5000 / 1e9)
    assert found.total_s == pytest.approx(sum(given_ns) / 1e9)
    assert found.max_s == ranked[-1] / 1e9


@both
@given(st.integers(0, LONGEST_NS))
def test_a_time_lands_in_the_bucket_that_holds_it(made, ns):
    ((bucket, held),) = of(made, ns).buckets
    assert held == 1
    assert (upper_ns(bucket - 1) if bucket else 0) <= ns < upper_ns(bucket)
    assert middle_ns(bucket) == pytest.approx(ns, rel=0.032, abs=0.5)


@both
def test_times_out_of_all_proportion_land_in_the_last_bucket(made):
    found = of(made, LONGEST_NS, 10 * LONGEST_NS, 5 * LONGEST_NS)
    assert found.buckets == ((BUCKETS - 1, 3),)
    assert found.max_s == 10 * LONGEST_NS / 1e9


@both
def test_a_negative_time_counts_as_none(made):
    assert of(made, -5) == Times(1, 0.0, 0.0, ((0, 1),))


@both
def test_one_time_is_its_own_quantiles(made):
    found = of(made, 1_000_000)
    assert found.p99_s == pytest.approx(0.001, rel=0.032)
    assert found.p99_s <= found.max_s == 0.001


@both
def test_no_time_at_all_is_zeros(made):
    found = of(made)
    assert (found, found.mean_s, found.p99_s) == (Times(), 0.0, 0.0)
    assert found.cumulative([0.1, 1]) == [0, 0]


@both
@given(st.lists(st.floats(1e-6, 100)), st.lists(st.floats(1e-6, 100), min_size=1))
def test_cumulative_counts_are_those_of_a_sorted_list_but_for_times_near_a_bound(made, times_s, bounds_s):
    bounds_s = sorted(bounds_s)
    found = of(made, *(int(seconds * 1e9) for seconds in times_s)).cumulative(bounds_s)
    assert found == sorted(found)
    for bound_s, count in zip(bounds_s, found, strict=True):
        assert sum(s <= bound_s * 0.96 for s in times_s) <= count <= sum(s <= bound_s * 1.04 for s in times_s)


@needs_native
@given(st.lists(st.integers(-(2**50), 2**50), max_size=300))
def test_the_native_histogram_holds_what_the_plain_one_does(times_ns):
    assert of(NativeHistogram, *times_ns) == of(PlainHistogram, *times_ns)


TIMES_NS = st.lists(st.integers(0, 10**12), max_size=50)


@given(TIMES_NS, TIMES_NS)
def test_two_histograms_merged_are_one_of_all_their_times(one_ns, other_ns):
    found, expected = (
        merged([of(PlainHistogram, *one_ns), of(PlainHistogram, *other_ns)]),
        of(PlainHistogram, *one_ns, *other_ns),
    )
    assert (found.count, found.max_s, found.buckets) == (expected.count, expected.max_s, expected.buckets)
    assert found.total_s == pytest.approx(expected.total_s)


@given(TIMES_NS, TIMES_NS)
def test_what_came_since_a_picture_is_what_was_added(before_ns, added_ns):
    before, now = of(PlainHistogram, *before_ns), of(PlainHistogram, *before_ns, *added_ns)
    found, expected = since(now, before), of(PlainHistogram, *added_ns)
    assert (found.count, found.buckets) == (expected.count, expected.buckets)
    assert found.total_s == pytest.approx(expected.total_s, abs=1e-6)
    assert found.max_s == pytest.approx(expected.max_s, rel=0.07, abs=2e-9)


@both
def test_memory_is_fixed(made):
    histogram = made()

    def record(count):
        for ns in range(0, count * 1000, 1000):
            histogram.add(ns)

    record(5000)
    before = sys.getallocatedblocks()
    record(20_000)
    # numbers above 256 are objects: at most one for each bucket
    assert sys.getallocatedblocks() - before < BUCKETS


def test_a_picture_can_be_written_as_json():
    assert json.loads(json.dumps(asdict(of(PlainHistogram, 5))))["buckets"] == [[5, 1]]
