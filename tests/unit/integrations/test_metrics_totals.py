"""Sums over workers that are born, answer, are silent, count anew and die, against the plain sum of what they said."""

import math
from collections import Counter
from fractions import Fraction

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from penstock.integrations.metrics.families import plain_family
from penstock.integrations.metrics.totals import MOST_LAYOUTS, SeriesTotals, WorkerCounts

FINITE = st.floats(0, 1e9) | st.sampled_from([0.1, 0.2, 1e-300, 1e300, 3.0])
SITES = st.sampled_from(["a", "b", "c"])


def histogram(bounds: list[str], counts: list[float], total: float = 1.5) -> list[object]:
    buckets = [["took_bucket", {"le": bound}, count, None, None] for bound, count in zip(bounds, counts, strict=True)]
    rest = [["took_count", {}, counts[-1], None, None], ["took_sum", {}, total, None, None]]
    return ["took", "", "histogram", "", [*buckets, *rest]]


def shown(totals: SeriesTotals, page: str = "own") -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    samples = [sample for family in totals.families(page) for sample in family[4]]
    found = {(name, tuple(sorted(labels.items()))): value for name, labels, value, *_ in samples}
    assert len(found) == len(samples)
    return found


class Counted:
    """A worker: what it has counted, and what of it the parent knows."""

    def __init__(self) -> None:
        self.counts = WorkerCounts()
        self.own: Counter[str] = Counter()
        self.said: dict[str, float] = {}


class Life(RuleBasedStateMachine):
    """Workers under numbers that are used again. The model sums each worker's last answers, exactly."""

    @initialize()
    def start(self) -> None:
        self.totals = SeriesTotals()
        self.workers: dict[int, Counted] = {}
        self.model: dict[str, Fraction] = {}
        self.before: dict[object, float] = {}

    @rule(number=st.integers(1, 4))
    def is_born(self, number: int) -> None:
        self.workers.setdefault(number, Counted())

    @rule(number=st.integers(1, 4))
    def dies(self, number: int) -> None:
        self.workers.pop(number, None)

    @rule(number=st.integers(1, 4), site=SITES, more=FINITE)
    def counts(self, number: int, site: str, more: float) -> None:
        if number in self.workers:
            self.workers[number].own[site] += more

    @rule(number=st.integers(1, 4), site=SITES, value=FINITE)
    def counts_anew(self, number: int, site: str, value: float) -> None:
        worker = self.workers.get(number)
        if worker is not None and value < worker.said.get(site, 0.0):
            worker.own[site] = value

    @rule(number=st.integers(1, 4), silent=st.sets(SITES, max_size=1))
    def answers(self, number: int, silent: set[str]) -> None:
        """Answer, though without a series that is gone from the worker's registry for a while."""
        if number not in self.workers:
            return
        worker = self.workers[number]
        told = {site: value for site, value in worker.own.items() if site not in silent}
        family = plain_family("jobs", "", "counter", [({"site": site}, value) for site, value in told.items()])
        living = [each.counts for each in self.workers.values()]
        self.totals.account("own", [family], worker.counts, living)
        for site, value in told.items():
            known = worker.said.get(site, 0.0)
            more = Fraction(value) - Fraction(known) if value >= known else Fraction(value)
            self.model[site] = self.model.get(site, Fraction()) + more
            worker.said[site] = value

    @invariant()
    def no_sum_falls_and_each_is_right(self) -> None:
        if not hasattr(self, "totals"):
            return
        now = shown(self.totals)
        assert now == {("jobs_total", (("site", site),)): float(value) for site, value in self.model.items()}
        assert all(now[series] >= value for series, value in self.before.items())
        self.before = now


TestLife = Life.TestCase


def account(totals: SeriesTotals, *answers: list[object]) -> list[WorkerCounts]:
    """Account one answer of each of so many workers."""
    workers = [WorkerCounts() for _ in answers]
    for worker, family in zip(workers, answers, strict=True):
        totals.account("own", [family], worker, workers)
    return workers


def test_histograms_of_other_bounds_are_kept_apart_by_a_label() -> None:
    totals = SeriesTotals()
    first, second = ["0.1", "+Inf"], ["0.5", "1", "+Inf"]
    account(totals, histogram(first, [1, 2]), histogram(second, [1, 3, 4]), histogram(first, [5, 6]))
    values = shown(totals)
    assert values["took_bucket", (("le", "0.1"),)] == 6
    assert values["took_bucket", (("le", "+Inf"),)] == values["took_count", ()] == 8
    assert values["took_bucket", (("le", "0.5"), ("penstock_buckets", "2"))] == 1
    assert values["took_count", (("penstock_buckets", "2"),)] == 4
    assert sum(value for (name, _), value in values.items() if name == "took_count") == 12


def test_beyond_the_most_bounds_a_histogram_has_its_last_bucket_alone() -> None:
    totals = SeriesTotals()
    account(totals, *(histogram([str(number), "+Inf"], [1, 2]) for number in range(MOST_LAYOUTS + 3)))
    values = shown(totals)
    assert values["took_bucket", (("le", "+Inf"), ("penstock_buckets", "other"))] == 6
    assert len([name for name, _ in values if name == "took_bucket"]) == 2 * MOST_LAYOUTS + 1


def test_a_histogram_whose_sum_falls_by_negative_observations_does_not_count_anew() -> None:
    totals, worker = SeriesTotals(), WorkerCounts()
    for count, total in (1, 5.0), (2, 3.0):
        totals.account("own", [histogram(["+Inf"], [count], total)], worker, [worker])
    assert shown(totals)["took_sum", ()] == 3.0
    assert shown(totals)["took_count", ()] == 2


def test_a_later_creation_counts_anew_though_the_value_has_risen() -> None:
    totals, worker = SeriesTotals(), WorkerCounts()
    for value, created_s in (1, 100.0), (5, 200.0):
        samples = [["jobs_total", {}, value, None, None], ["jobs_created", {}, created_s, None, None]]
        totals.account("own", [["jobs", "", "counter", "", samples]], worker, [worker])
    assert shown(totals) == {("jobs_total", ()): 6, ("jobs_created", ()): 100.0}


def test_the_newest_exemplar_is_shown() -> None:
    totals = SeriesTotals()
    exemplars = [{"trace": "old"}, 1.0, 5.0], [{"trace": "new"}, 1.0, 9.0], [{"trace": "older"}, 1.0, 1.0]
    account(totals, *(["jobs", "", "counter", "", [["jobs_total", {}, 1.0, None, each]]] for each in exemplars))
    [[_, _, _, _, [sample]]] = totals.families("own")
    assert sample[4][0] == {"trace": "new"}


@pytest.mark.parametrize("value", [math.inf, math.nan])
def test_a_value_that_is_no_finite_number_is_shown_as_one_process_shows_it(value: float) -> None:
    totals, worker = SeriesTotals(), WorkerCounts()
    for told in 1.5, value, value:
        totals.account("own", [plain_family("jobs", "", "counter", [({}, told)])], worker, [worker])
    assert shown(totals)["jobs_total", ()] == pytest.approx(value, nan_ok=True)


def labelled(sites: range) -> list[object]:
    return plain_family("jobs", "", "counter", [({"site": str(site)}, 1.0) for site in sites])


def test_memory_is_bounded_however_many_workers_die() -> None:
    totals = SeriesTotals(most_values=100)
    for generation in range(50):
        account(totals, labelled(range(generation * 10, generation * 10 + 10)))
        assert len(totals) <= 100
    # the newest are kept
    assert ("jobs_total", (("site", "499"),)) in shown(totals)
    assert ("jobs_total", (("site", "0"),)) not in shown(totals)


def test_label_sets_beyond_the_bound_are_left_out_and_counted_while_those_before_count_on() -> None:
    totals, worker = SeriesTotals(most_values=100), WorkerCounts()
    totals.account("own", [labelled(range(90))], worker, [worker])
    totals.account("own", [labelled(range(130))], worker, [worker])
    assert (len(totals), worker.left_out["own"]) == (100, 30)
    other = WorkerCounts()
    totals.account("own", [labelled(range(130))], other, [worker, other])
    assert shown(totals)["jobs_total", (("site", "89"),)] == 2


def test_pages_of_different_registries_are_apart() -> None:
    totals, worker = SeriesTotals(), WorkerCounts()
    for page, value in ("own", 1.0), ("0", 2.0):
        totals.account(page, [plain_family("jobs", "", "counter", [({}, value)])], worker, [worker])
    assert (shown(totals), shown(totals, "0")) == ({("jobs_total", ()): 1}, {("jobs_total", ()): 2})
