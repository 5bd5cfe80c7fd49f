"""Deadlines: each job is told once, after its time and soon; memory follows the jobs that are watched."""

from hypothesis import given
from hypothesis import strategies as st

from penstock.executors.call import Call
from penstock.executors.deadlines import Deadlines
from penstock.executors.job import ThreadJob


def timed(timeout_ns, offered_ns=1_000_000_000):
    made = ThreadJob(Call(int))
    made.offered_ns, made.expires_ns = offered_ns, offered_ns + timeout_ns
    return made


@given(st.integers(0, 10**15), st.integers(0, 10**15))
def test_a_job_is_late_neither_early_nor_by_much(timeout_ns, offered_ns):
    watched, job = Deadlines(), timed(timeout_ns, offered_ns)
    due_ns = watched.add(job)
    assert job.expires_ns <= due_ns <= job.expires_ns + max(2**21, timeout_ns // 64 + 1)
    assert watched.next_ns() == due_ns
    assert watched.expired(due_ns - 1) == []
    assert watched.expired(due_ns) == [job]
    assert watched.next_ns() is None


@given(st.lists(st.tuples(st.integers(0, 10**11), st.booleans()), max_size=50), st.integers(0, 10**11))
def test_those_whose_time_is_up_and_nobody_else(jobs, now_ns):
    watched, kept = Deadlines(), []
    for timeout_ns, is_discarded in jobs:
        job = timed(timeout_ns, 0)
        due_ns = watched.add(job)
        if is_discarded:
            watched.discard(job)
            watched.discard(job)
        else:
            kept.append((due_ns, job))
    assert set(watched.expired(now_ns)) == {job for due_ns, job in kept if due_ns <= now_ns}
    assert watched.next_ns() == min((due_ns for due_ns, _ in kept if due_ns > now_ns), default=None)


def test_buckets_do_not_grow_with_the_jobs():
    watched = Deadlines()
    for offered_ns in range(0, 3600 * 10**9, 10**8):
        watched.expired(offered_ns)
        job = timed(600 * 10**9, offered_ns)
        watched.add(job)
        watched.discard(job)
    assert len(watched._order) == len(watched._buckets) < 150
