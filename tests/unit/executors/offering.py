"""Offers a full lane more and more jobs, and sees whether memory stays flat. For lanes of any kind."""

import gc
import sys
import threading
from collections import Counter

from penstock.errors import Overloaded

# what caches and a growing table may take, in the allocator's blocks: far less than one for each job
FLAT_BLOCKS = 2000


def offer_many(offer, count):
    """Return the outcomes of `count` offers: shed, or accepted (also those that displaced a job or ran here)."""
    refused = 0
    for _ in range(count):
        try:
            offer()
        except Overloaded:
            refused += 1
    return Counter(refused=refused, taken=count - refused)


def assert_memory_stays_flat(offer, count, warm_up=20_000):
    """Offer `count` jobs by `offer()`, after some for the caches to fill; gives what became of the `count`."""
    offer_many(offer, warm_up)
    gc.collect()
    before = sys.getallocatedblocks()
    seen = offer_many(offer, count)
    gc.collect()
    grown = sys.getallocatedblocks() - before
    assert grown < FLAT_BLOCKS, f"{grown} blocks more after {count} offers"
    return seen


def offer_from_threads(lane, fn, count, callers):
    """`count` jobs from so many threads that wait for places; the most ever queued and waiting, and how they ended."""
    most, done = Counter(), Counter()

    def offer():
        for _ in range(count // callers):
            future = lane.submit(fn)
            taken = lane.statistics()
            most["queued"] = max(most["queued"], taken.queued)
            most["waiting"] = max(most["waiting"], taken.waiting)
            future.add_done_callback(lambda ended: done.update([ended.exception() is None]))

    threads = [threading.Thread(target=offer) for _ in range(callers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lane.shutdown(wait=True)
    return most, done
