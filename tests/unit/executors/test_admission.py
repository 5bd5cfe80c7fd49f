"""Admission against a model, under each policy: counts never drift, bounds hold, nobody is lost or doubled."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, precondition, rule

from penstock.config import LaneConfig
from penstock.errors import Overloaded
from penstock.executors.admission import Admission, Verdict
from tests.unit.executors.jobs import job

POLICIES = ["wait", "shed", "caller_runs", "drop_oldest"]
LIMIT, LIMIT_BYTES = 4, 100


def admission(full="wait", **bounds):
    return Admission("cpu", LaneConfig(full=full, **{"queue_jobs": LIMIT, "queue_bytes": LIMIT_BYTES} | bounds))


class AdmissionMachine(RuleBasedStateMachine):
    """The model: what is queued, what waits, what was taken. The lane's duties are done at once."""

    jobs = Bundle("jobs")

    @initialize(policy=st.sampled_from(POLICIES))
    def choose(self, policy):
        self.policy, self.admission = policy, admission(policy)
        self.queued, self.waiting, self.taken = set(), set(), []
        # put_back goes past the bounds
        self.allowance = 0

    @rule(target=jobs, key=st.sampled_from("ab"))
    def offer(self, key):
        made, was_full = job(key), self.admission.is_full()
        try:
            verdict, displaced = self.admission.offer(made)
        except Overloaded as refused:
            assert (self.policy, was_full, refused.reason, refused.limit) == ("shed", True, "full", LIMIT)
            return made
        if verdict is Verdict.QUEUED:
            self.queued.add(made)
            assert not was_full or self.policy == "drop_oldest"
            assert (displaced is not None) is was_full
            self.queued -= {displaced}
        else:
            assert was_full and displaced is None
            assert verdict is {"wait": Verdict.WAITING, "caller_runs": Verdict.CALLER_RUNS}[self.policy]
            if verdict is Verdict.WAITING:
                self.waiting.add(made)
        return made

    @rule(one=jobs, size_bytes=st.integers(0, 80))
    def set_size(self, one, size_bytes):
        self.admission.set_size(one, size_bytes)
        while (displaced := self.admission.excess()) is not None:
            assert self.policy == "drop_oldest"
            self.queued.remove(displaced)
        self.admit()

    def admit(self):
        while (admitted := self.admission.admit()) is not None:
            self.waiting.remove(admitted)
            self.queued.add(admitted)

    @rule()
    def take(self):
        found = self.admission.take()
        assert (found is None) is (not self.queued)
        if found is not None:
            self.queued.remove(found)
            self.taken.append(found)
            self.allowance = max(0, self.allowance - 1)
        self.admit()

    @precondition(lambda self: self.taken)
    @rule()
    def put_back(self):
        again = self.taken.pop()
        self.admission.put_back(again)
        self.queued.add(again)
        self.allowance += 1

    @rule(one=jobs)
    def discard(self, one):
        assert self.admission.discard(one) is (one in self.queued | self.waiting)
        self.queued.discard(one)
        self.waiting.discard(one)
        self.admit()

    @rule()
    def drain(self):
        drained = self.admission.drain()
        assert len(drained) == len(set(drained))
        assert set(drained) == self.queued | self.waiting
        self.queued, self.waiting, self.allowance = set(), set(), 0

    @invariant()
    def counts_never_drift(self):
        assert self.admission.queued == len(self.queued)
        assert self.admission.waiting == len(self.waiting)
        assert self.admission.queued_bytes == sum(one.size_bytes for one in self.queued)

    @invariant()
    def bounds_hold(self):
        assert len(self.queued) <= LIMIT + self.allowance
        if self.policy == "drop_oldest" and len(self.queued) > 1 and not self.allowance:
            assert self.admission.queued_bytes <= LIMIT_BYTES

    @invariant()
    def nobody_waits_beside_a_free_place(self):
        assert self.admission.is_full() or not self.waiting


TestAdmissionAgainstItsModel = AdmissionMachine.TestCase
TestAdmissionAgainstItsModel.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)


def test_a_full_lane_sheds_and_says_what_to_do():
    full = admission("shed", queue_jobs=1)
    full.offer(job())
    with pytest.raises(Overloaded) as refused:
        full.offer(job())
    assert str(refused.value) == (
        "lane 'cpu' is full (1 jobs queued, limit 1): try again later, raise its queue_jobs, queue_bytes or workers, "
        'or choose full = "wait"'
    )
    assert (refused.value.reason, refused.value.queued, refused.value.limit) == ("full", 1, 1)


def test_a_lane_full_of_bytes_says_so():
    full = admission("shed")
    heavy = job()
    full.offer(heavy)
    full.set_size(heavy, LIMIT_BYTES)
    with pytest.raises(Overloaded, match="100 bytes of payload queued, limit 100"):
        full.offer(job())


def test_the_oldest_goes_and_is_told_why():
    full, old, new = admission("drop_oldest", queue_jobs=1), job(), job()
    full.offer(old)
    assert full.offer(new) == (Verdict.QUEUED, old)
    told = full.displaced(old)
    assert told.reason == "displaced"
    assert str(told).startswith("builtins.int: displaced by a newer job: lane 'cpu' is full (1 jobs queued, limit 1)")
    assert full.take() is new


def test_waiting_jobs_come_in_fair_by_key_when_there_is_room():
    full, first = admission(queue_jobs=1), job("a")
    full.offer(first)
    line = [job("a"), job("a"), job("b")]
    assert [full.offer(one)[0] for one in line] == [Verdict.WAITING] * 3
    assert full.admit() is None
    admitted = []
    while full.take() is not None:
        admitted.append(full.admit())
    assert admitted == [line[0], line[2], line[1], None]


def test_a_new_job_does_not_overtake_those_that_wait():
    full, late = admission(queue_jobs=1), job()
    full.offer(job())
    full.offer(waiting := job())
    full.take()
    assert full.offer(late) == (Verdict.WAITING, None)
    assert full.admit() is waiting


def test_a_job_put_back_is_next_and_counts_again():
    busy, one = admission(queue_jobs=1), job()
    busy.offer(one)
    busy.set_size(one, 10)
    assert busy.take() is one
    assert (busy.queued, busy.queued_bytes) == (0, 0)
    busy.offer(job())
    busy.put_back(one)
    assert (busy.queued, busy.queued_bytes) == (2, 10)
    assert busy.take() is one


def test_a_job_heavier_than_the_bound_still_runs():
    lane, heavy = admission("drop_oldest"), job()
    lane.offer(heavy)
    lane.set_size(heavy, 10 * LIMIT_BYTES)
    assert lane.excess() is None
    assert lane.take() is heavy
