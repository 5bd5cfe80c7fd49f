"""The fair queue against a model of ten lines, and its promises one by one."""

import time
import weakref
from collections import deque

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, rule

from penstock.core_source import plain
from penstock.executors.admission import FairQueue
from tests.unit.executors.jobs import job

KEYS = st.sampled_from(["a", "b", "c", None, 4])


class Model:
    """Two lists say it all: the keys in rotation, the jobs by age."""

    def __init__(self):
        self.keys, self.jobs = [], []

    def push(self, one, first=False):
        self.jobs.insert(0 if first else len(self.jobs), one)
        if one.key not in self.keys:
            self.keys.append(one.key)

    def remove(self, one):
        self.jobs.remove(one)
        if all(other.key != one.key for other in self.jobs):
            self.keys.remove(one.key)
        return one

    def pop(self):
        if not self.keys:
            return None
        self.keys.append(self.keys.pop(0))
        return self.remove(next(one for one in self.jobs if one.key == self.keys[-1]))


class FairQueueMachine(RuleBasedStateMachine):
    kind = FairQueue
    jobs = Bundle("jobs")

    def __init__(self):
        super().__init__()
        self.queue, self.model = self.kind(), Model()
        # key that has jobs -> keys served since it was served itself or came
        self.passed_by = {}

    @rule(target=jobs, key=KEYS, first=st.booleans())
    def push(self, key, first):
        made = job(key)
        (self.queue.push_first if first else self.queue.push)(made)
        self.model.push(made, first)
        self.passed_by.setdefault(key, [])
        return made

    @rule(target=jobs)
    def pop(self):
        found = self.queue.pop()
        assert found is self.model.pop()
        if found is None:
            return multiple()
        self.passed_by.pop(found.key)
        for served in self.passed_by.values():
            assert found.key not in served, "a key waited more than one round"
            served.append(found.key)
        if found.key in self.model.keys:
            self.passed_by[found.key] = []
        return found

    @rule(target=jobs, one=consumes(jobs))
    def push_again(self, one):
        if one not in self.model.jobs:
            self.queue.push_first(one)
            self.model.push(one, first=True)
            self.passed_by.setdefault(one.key, [])
        return one

    @rule()
    def pop_oldest(self):
        expected = self.model.jobs[0] if self.model.jobs else None
        assert self.queue.pop_oldest() is expected
        if expected is not None:
            self.model.remove(expected)
            self.forget_idle_keys()

    @rule(one=jobs)
    def discard(self, one):
        is_here = one in self.model.jobs
        assert self.queue.discard(one) is is_here
        if is_here:
            self.model.remove(one)
            self.forget_idle_keys()

    def forget_idle_keys(self):
        self.passed_by = {key: served for key, served in self.passed_by.items() if key in self.model.keys}

    @rule(one=jobs)
    def contains(self, one):
        assert (one in self.queue) is (one in self.model.jobs)

    @invariant()
    def counts_agree(self):
        assert len(self.queue) == len(self.model.jobs)
        assert (self.queue.peek() is None) is (not self.model.jobs)


class PlainFairQueueMachine(FairQueueMachine):
    kind = plain("workers", "jobqueue").FairQueue


TestFairQueueAgainstItsModel = FairQueueMachine.TestCase
TestPlainFairQueueAgainstItsModel = PlainFairQueueMachine.TestCase
for case in (TestFairQueueAgainstItsModel, TestPlainFairQueueAgainstItsModel):
    case.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)


def filled(*keys):
    queue, jobs = FairQueue(), [job(key) for key in keys]
    for one in jobs:
        queue.push(one)
    return queue, jobs


def popped(queue):
    return list(iter(queue.pop, None))


def test_keys_take_turns_and_within_a_key_the_first_goes_first():
    queue, (a1, a2, a3, b1, c1, b2) = filled("a", "a", "a", "b", "c", "b")
    assert queue.peek() is a1
    assert popped(queue) == [a1, b1, c1, a2, b2, a3]


def test_a_key_that_floods_the_queue_does_not_delay_another():
    queue, jobs = filled(*["flood"] * 1000, "quiet")
    assert queue.pop() is jobs[0]
    assert queue.pop() is jobs[-1]


def test_a_job_put_first_leads_its_line_but_not_the_rotation():
    queue, (a1, b1) = filled("a", "b")
    again = job("b")
    queue.push_first(again)
    assert popped(queue) == [a1, again, b1]


def test_the_oldest_is_found_across_keys_whenever_asked():
    queue, (a1, b1, a2, b2) = filled("a", "b", "a", "b")
    assert queue.pop() is a1
    assert queue.pop_oldest() is b1
    first = job("c")
    queue.push_first(first)
    assert [queue.pop_oldest() for _ in range(4)] == [first, a2, b2, None]


def test_an_emptied_queue_holds_nothing_back():
    queue, jobs = filled("a", "b", "c")
    left = [weakref.ref(one) for one in jobs]
    queue.pop()
    queue.discard(jobs[1])
    queue.pop_oldest()
    jobs.clear()
    assert (len(queue), queue.pop(), queue.peek(), queue.pop_oldest()) == (0, None, None, None)
    assert [one() for one in left] == [None] * 3
    assert not queue._lines


def timed(operation):
    start = time.thread_time()
    for _ in range(2000):
        operation()
    return time.thread_time() - start


def test_the_cost_of_an_operation_does_not_grow_with_the_queue():
    """Half of the jobs are discarded at the head first: holes that a plain dict would walk over at each pop."""
    costs = []
    for length in (4_000, 64_000):
        queue, jobs = filled(*range(10), *[None] * length)
        for one in jobs[: length // 2]:
            queue.discard(one)
        again = deque(jobs[: length // 2])

        def turn(queue=queue, again=again):
            queue.push(again.popleft())
            again.append(queue.pop())

        costs.append(min(timed(turn) for _ in range(3)))
    assert costs[1] < costs[0] * 8
