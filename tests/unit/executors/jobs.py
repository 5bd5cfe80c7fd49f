"""Jobs for the tests of queues: the real thing, from a thread, with nothing to do."""

from penstock.executors.call import Call
from penstock.executors.job import ThreadJob


def job(key=None, size_bytes=0):
    made = ThreadJob(Call(int, key=key))
    made.size_bytes = size_bytes
    return made
