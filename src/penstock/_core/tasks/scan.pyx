"""A scan of a ledger: the numbers of every record, copied in pieces, so that a hundred thousand tasks hold no loop up.

`take` copies a piece with the GIL; between two pieces the loop runs, so a scan is not of one moment. Sums and ranks are
made without the GIL, on the copy alone.

Ownership: the copied numbers. There is no reference in them; `Ledger.weak_at` finds the task of one.
"""

from penstock._core.tasks.rows import ScanRow, SiteScan

from cpython.mem cimport PyMem_Calloc, PyMem_Free, PyMem_Malloc, PyMem_Realloc
from libc.stdint cimport int64_t, uint32_t, uint64_t

from penstock._core._sys.python cimport row
from penstock._core.tasks.ledger cimport BLOCK_RECORDS, READY, RUNNING, WAITING, Ledger, Record

cdef enum:
    # The keys by which tasks are ranked.
    AGE = 0
    RUNNING_TIME = 1
    READY_TIME = 2
    WAITING_TIME = 3
    STEPS = 4
    NUMBER = 5


cdef struct SiteSums:
    uint64_t ready, running, waiting
    int64_t oldest_ns, running_ns, ready_ns


cdef class TaskScan:
    """A scan that began at `taken_ns`, on the monotonic clock."""

    def __cinit__(self, int64_t taken_ns):
        self.taken_ns = taken_ns

    def __dealloc__(self):
        PyMem_Free(self.records)

    def take(self, Ledger ledger not None, size_t most):
        """Copy the next `most` records, those in use. Return whether some are left."""
        cdef size_t end = min(self.at + most, ledger.block_count * BLOCK_RECORDS)
        cdef Record *record
        cdef ScannedRecord *copy
        self.need_room(end - self.at if end > self.at else 0)
        while self.at < end:
            record = ledger.record_at(self.at)
            if record.number:
                copy = &self.records[self.count]
                copy.number, copy.born_ns, copy.since_ns = record.number, record.born_ns, record.since_ns
                copy.running_ns, copy.ready_ns, copy.at = record.running_ns, record.ready_ns, self.at
                copy.site, copy.steps, copy.state = record.site, record.steps, record.state
                self.count += 1
            self.at += 1
        return self.at < ledger.block_count * BLOCK_RECORDS

    cdef int need_room(self, size_t more) except -1:
        cdef size_t room = max(2 * self.room, self.count + more)
        cdef void *wider
        if self.count + more <= self.room:
            return 0
        wider = PyMem_Realloc(self.records, room * sizeof(ScannedRecord))
        if wider is NULL:
            raise MemoryError
        self.records, self.room = <ScannedRecord *>wider, room
        return 0

    def __len__(self):
        return self.count

    def sites(self):
        """Return a `SiteScan` for each site that has live tasks."""
        cdef uint32_t site, most = 0
        cdef size_t at
        cdef SiteSums *sums
        for at in range(self.count):
            most = max(most, self.records[at].site)
        sums = <SiteSums *>PyMem_Calloc(most + 1, sizeof(SiteSums))
        if sums is NULL:
            raise MemoryError
        try:
            with nogil:
                for at in range(self.count):
                    add_to(&sums[self.records[at].site], &self.records[at], self.taken_ns)
            return [
                row(SiteScan, (
                    site, sums[site].ready, sums[site].running, sums[site].waiting, sums[site].oldest_ns,
                    sums[site].running_ns, sums[site].ready_ns,
                ))
                for site in range(most + 1) if sums[site].ready + sums[site].running + sums[site].waiting
            ]
        finally:
            PyMem_Free(sums)

    def top(self, int key, size_t limit, bint descending, const unsigned char[::1] wanted=None):
        """Return a `ScanRow` for each of the `limit` first records by a key, in order.

        The key is 0 age, 1 time running, 2 ready, 3 waiting, 4 steps, 5 number. `wanted` has a byte for each record of
        the scan: 0 leaves it out.
        """
        cdef Ranked *chosen
        cdef const unsigned char *marks = NULL
        cdef size_t at, count
        if wanted is not None:
            if <size_t>wanted.shape[0] != self.count:
                raise ValueError(f"a byte for each of {self.count} records is needed, not {wanted.shape[0]}")
            if self.count:
                marks = &wanted[0]
        limit = min(limit, self.count)
        if limit == 0:
            return []
        chosen = <Ranked *>PyMem_Malloc(limit * sizeof(Ranked))
        if chosen is NULL:
            raise MemoryError
        try:
            with nogil:
                count = self.choose(chosen, limit, key, descending, marks)
            return [self.row_at(chosen[at].at) for at in range(count)]
        finally:
            PyMem_Free(chosen)

    cdef size_t choose(
        self, Ranked *chosen, size_t limit, int key, bint descending, const unsigned char *wanted
    ) noexcept nogil:
        """Fill `chosen` with the first records, sorted. Return their number."""
        cdef size_t at, count = 0
        cdef Ranked one
        for at in range(self.count):
            if wanted is not NULL and not wanted[at]:
                continue
            one.at, one.key = at, self.key_of(&self.records[at], key)
            if not descending:
                one.key = -one.key
            if count < limit:
                chosen[count] = one
                count += 1
                sift_up(chosen, count - 1)
            elif one.key > chosen[0].key:
                chosen[0] = one
                sift_down(chosen, 0, count)
        # a heap with the last of them first: taken apart from its end it is in order
        for at in range(count):
            one = chosen[0]
            chosen[0] = chosen[count - 1 - at]
            chosen[count - 1 - at] = one
            sift_down(chosen, 0, count - 1 - at)
        return count

    cdef int64_t key_of(self, const ScannedRecord *record, int key) noexcept nogil:
        cdef int64_t in_state_ns = max(self.taken_ns - record.since_ns, <int64_t>0) if record.since_ns else 0
        cdef int64_t age_ns = max(self.taken_ns - record.born_ns, <int64_t>0) if record.born_ns else 0
        cdef int64_t running_ns = record.running_ns + (in_state_ns if record.state == RUNNING else 0)
        cdef int64_t ready_ns = record.ready_ns + (in_state_ns if record.state == READY else 0)
        if key == AGE:
            return age_ns
        if key == RUNNING_TIME:
            return running_ns
        if key == READY_TIME:
            return ready_ns
        if key == WAITING_TIME:
            return age_ns - running_ns - ready_ns
        return <int64_t>record.steps if key == STEPS else <int64_t>record.number

    cdef object row_at(self, size_t at):
        cdef ScannedRecord record = self.records[at]
        return row(ScanRow, (
            record.number, record.at, record.site, record.born_ns, record.since_ns, record.state, record.running_ns,
            record.ready_ns, record.steps,
        ))

    def places(self, size_t start, size_t most):
        """Return (number, index in the ledger, site) of the records from the scan's index `start` on, at most `most`."""
        cdef size_t at
        return [
            (self.records[at].number, self.records[at].at, self.records[at].site)
            for at in range(start, min(start + most, self.count))
        ]


cdef void add_to(SiteSums *sums, const ScannedRecord *record, int64_t taken_ns) noexcept nogil:
    cdef int64_t in_state_ns = max(taken_ns - record.since_ns, <int64_t>0) if record.since_ns else 0
    sums.ready += record.state == READY
    sums.running += record.state == RUNNING
    sums.waiting += record.state == WAITING
    sums.running_ns += record.running_ns + (in_state_ns if record.state == RUNNING else 0)
    sums.ready_ns += record.ready_ns + (in_state_ns if record.state == READY else 0)
    if record.born_ns:
        sums.oldest_ns = max(sums.oldest_ns, taken_ns - record.born_ns)


cdef void sift_up(Ranked *heap, size_t at) noexcept nogil:
    """Restore the order of a heap with the smallest key first, after a change at `at`."""
    cdef Ranked one = heap[at]
    cdef size_t above
    while at:
        above = (at - 1) // 2
        if heap[above].key <= one.key:
            break
        heap[at] = heap[above]
        at = above
    heap[at] = one


cdef void sift_down(Ranked *heap, size_t at, size_t count) noexcept nogil:
    """Restore the order of a heap with the smallest key first, after a change at its top."""
    cdef Ranked one = heap[at]
    cdef size_t below
    while 2 * at + 1 < count:
        below = 2 * at + 1
        if below + 1 < count and heap[below + 1].key < heap[below].key:
            below += 1
        if one.key <= heap[below].key:
            break
        heap[at] = heap[below]
        at = below
    heap[at] = one
