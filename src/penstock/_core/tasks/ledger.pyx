"""The ledger: a record of every live task, found by the task's address, and the counts of ended tasks.

Open addressing over the address, linear, with removal by shifting back; records lie in blocks and never move. A
record does not keep its task alive. It has the task's address as a name, and a weak reference from its birth on. Only
the weak reference says whether the name still holds: the address of a collected task may be another object's, and is
never made an object again. A record whose task is collected is of a lost task: it was pending. Up to Python 3.13
asyncio's registry of tasks makes a weak reference to each of them. The record shares it: to make and free another
would be a fifth of all that telemetry costs a task.

Ownership: a record owns its weak reference and its creation stack. Only code that holds the GIL touches any of it.
"""

from asyncio import tasks

from penstock._core.tasks.rows import LostRow, Outcomes, SiteRow, TaskRow

from cpython.mem cimport PyMem_Calloc, PyMem_Free, PyMem_Malloc, PyMem_Realloc
from cpython.object cimport PyObject
from cpython.ref cimport Py_INCREF, Py_XDECREF, Py_XINCREF
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.string cimport memset

from penstock._core.tasks.histogram cimport Histogram, add_all, record as add_time

cdef extern from *:
    """
    /* The newest weak reference to an object if it has that callback, else NULL. Borrowed. */
    static PyObject *penstock_weak_with(PyObject *object, PyObject *callback)
    {
        Py_ssize_t offset = Py_TYPE(object)->tp_weaklistoffset;
        PyWeakReference *first = offset ? *(PyWeakReference **)((char *)object + offset) : NULL;
        return first != NULL && first->wr_callback == callback ? (PyObject *)first : NULL;
    }
    """
    PyObject *weak_with "penstock_weak_with"(PyObject *object, PyObject *callback) noexcept

from penstock._core._sys.python cimport row

cdef extern from "Python.h":
    object PyWeakref_NewRef(object referent, PyObject *callback)

cdef enum:
    FIRST_SIZE = 256


cdef object outcomes_of(uint64_t *ended):
    return row(Outcomes, (ended[RETURNED], ended[RAISED], ended[CANCELED], ended[LOST]))


# The callback of the weak references that asyncio's registry makes; None, which no weak reference has, where it keeps a list.
cdef object of_registry = getattr(getattr(tasks, "_scheduled_tasks", getattr(tasks, "_all_tasks", None)), "_remove", None)


cdef inline object weak_reference(object task):
    """Return a weak reference to the task: the registry's own, which lives as long as the task, or a new one."""
    cdef PyObject *weak = weak_with(<PyObject *>task, <PyObject *>of_registry)
    return PyWeakref_NewRef(task, NULL) if weak is NULL else <object>weak


cdef class Ledger:
    """The tasks of one loop."""

    def __cinit__(self):
        self.slots = <Slot *>PyMem_Calloc(FIRST_SIZE, sizeof(Slot))
        if self.slots is NULL:
            raise MemoryError
        self.mask = FIRST_SIZE - 1

    def __dealloc__(self):
        cdef size_t at
        if self.slots is not NULL:
            for at in range(self.mask + 1):
                if self.slots[at].record is not NULL:
                    Py_XDECREF(self.slots[at].record.weak)
                    Py_XDECREF(self.slots[at].record.stack)
            PyMem_Free(self.slots)
        for at in range(self.block_count):
            PyMem_Free(self.blocks[at])
        PyMem_Free(self.blocks)
        for at in range(self.site_count):
            Py_XDECREF(self.by_site[at].latency)
        PyMem_Free(self.by_site)
        for at in range(self.steps_count):
            Py_XDECREF(self.steps_by_site[at].step)
            Py_XDECREF(self.steps_by_site[at].schedule)
        PyMem_Free(self.steps_by_site)

    cdef inline Record *record_at(self, size_t at) noexcept:
        """Return a record by index, in use or free (`number` 0), in the order of memory."""
        return &(<Record *>self.blocks[at // BLOCK_RECORDS])[at % BLOCK_RECORDS]

    cdef Record *add(self, object task, uint32_t site, int64_t born_ns, uint64_t number) except NULL:
        """Add a record for a task that has none."""
        cdef Record *record
        cdef PyObject *key = <PyObject *>task
        cdef size_t at
        # Calls that may fail come first, and of these first the ones that may collect garbage: a finalizer may make tasks.
        if site >= self.site_count:
            self.need_site(site)
        weak = weak_reference(task)
        if self.spare is NULL:
            self.need_records()
        if 3 * self.count >= 2 * self.mask:
            self.grow()
        self.created += 1
        self.by_site[site].created += 1
        record = self.spare
        self.spare = <Record *>record.task
        Py_INCREF(weak)
        record.task, record.weak, record.stack = key, <PyObject *>weak, NULL
        record.site, record.number, record.steps = site, number, 0
        record.born_ns = record.since_ns = born_ns
        record.running_ns = record.ready_ns = 0
        record.state, record.is_reported = READY, False
        at = place_of(key) & self.mask
        while self.slots[at].task is not NULL:
            at = (at + 1) & self.mask
        self.slots[at] = Slot(key, record)
        self.count += 1
        return record

    cdef int count_birth(self, uint32_t site) except -1:
        if site >= self.site_count:
            self.need_site(site)
        self.created += 1
        self.by_site[site].created += 1
        return 0

    cdef int count_end(self, uint32_t site, int outcome, int64_t lived_ns) except -1:
        """Count the end of a task that had no record. `lived_ns` -1: its time is not known."""
        self.by_site[site].ended[outcome] += 1
        if lived_ns >= 0:
            if self.by_site[site].latency is NULL:
                self.make_latency(site)
            add_time(<Histogram>self.by_site[site].latency, lived_ns)
        return 0

    cdef int make_latency(self, uint32_t site) except -1:
        """Make the histogram of a site: 5 KiB, so not before the first of its tasks has ended."""
        latency = Histogram()
        # code that ran meanwhile may have made it
        if self.by_site[site].latency is NULL:
            Py_INCREF(latency)
            self.by_site[site].latency = <PyObject *>latency
        return 0

    cdef int add_step(self, uint32_t site, int64_t took_ns, int64_t waited_ns) except -1:
        """Count a step of a task, for its site."""
        cdef PyObject *step
        cdef PyObject *schedule
        if site >= self.steps_count or self.steps_by_site[site].schedule is NULL:
            self.need_steps(site)
        step, schedule = self.steps_by_site[site].step, self.steps_by_site[site].schedule
        add_time(<Histogram>step, took_ns)
        add_time(<Histogram>schedule, waited_ns)
        return 0

    cdef int need_steps(self, uint32_t site) except -1:
        """Make the two histograms of a site: 5 KiB each."""
        cdef SiteSteps *wider
        cdef uint32_t count
        step, schedule = Histogram(), Histogram()
        if site >= self.steps_count:
            count = max(2 * self.steps_count, site + 1, 16)
            wider = <SiteSteps *>PyMem_Realloc(self.steps_by_site, count * sizeof(SiteSteps))
            if wider is NULL:
                raise MemoryError
            memset(&wider[self.steps_count], 0, (count - self.steps_count) * sizeof(SiteSteps))
            self.steps_by_site, self.steps_count = wider, count
        # code that ran meanwhile may have made them
        if self.steps_by_site[site].schedule is NULL:
            Py_INCREF(step)
            Py_INCREF(schedule)
            self.steps_by_site[site] = SiteSteps(<PyObject *>step, <PyObject *>schedule)
        return 0

    cdef int end(self, Record *record, int outcome, int64_t now_ns) except -1:
        """End the record of a task. `now_ns` 0: times are not recorded."""
        cdef PyObject *weak = record.weak
        cdef PyObject *stack = record.stack
        cdef uint32_t number = record.site
        cdef SiteCounts *site = &self.by_site[number]
        cdef PyObject *latency
        # a task that was born at level COUNT has no birth
        cdef int64_t lived_ns = now_ns - record.born_ns if now_ns and record.born_ns and outcome != LOST else -1
        site.running_ns += record.running_ns
        site.ready_ns += record.ready_ns
        self.remove(record.task)
        record.task, record.weak, record.stack, record.number = <PyObject *>self.spare, NULL, NULL, 0
        self.spare = record
        if lived_ns >= 0 and site.latency is NULL:
            return self.end_first(number, outcome, lived_ns, weak, stack)
        site.ended[outcome] += 1
        if lived_ns >= 0:
            latency = site.latency
            add_time(<Histogram>latency, lived_ns)
        # last: the release may run code
        Py_XDECREF(weak)
        Py_XDECREF(stack)
        return 0

    cdef int end_first(self, uint32_t site, int outcome, int64_t lived_ns, PyObject *weak, PyObject *stack) except -1:
        """The rest of `end` for the first task of its site to end."""
        try:
            return self.count_end(site, outcome, lived_ns)
        finally:
            Py_XDECREF(weak)
            Py_XDECREF(stack)

    cdef int remove(self, PyObject *task) noexcept:
        cdef size_t at = place_of(task) & self.mask, next_at, home
        while self.slots[at].task is not task:
            if self.slots[at].task is NULL:
                return 0
            at = (at + 1) & self.mask
        self.count -= 1
        next_at = at
        while True:
            next_at = (next_at + 1) & self.mask
            if self.slots[next_at].task is NULL:
                break
            home = place_of(self.slots[next_at].task) & self.mask
            # it may move to the hole unless its home lies behind the hole
            if ((next_at - home) & self.mask) >= ((next_at - at) & self.mask):
                self.slots[at] = self.slots[next_at]
                at = next_at
        self.slots[at] = Slot(NULL, NULL)
        return 0

    cdef int grow(self) except -1:
        cdef size_t size = 2 * (self.mask + 1), mask = size - 1, at, to
        cdef Slot *wider = <Slot *>PyMem_Calloc(size, sizeof(Slot))
        if wider is NULL:
            raise MemoryError
        for at in range(self.mask + 1):
            if self.slots[at].task is not NULL:
                to = place_of(self.slots[at].task) & mask
                while wider[to].task is not NULL:
                    to = (to + 1) & mask
                wider[to] = self.slots[at]
        PyMem_Free(self.slots)
        self.slots, self.mask = wider, mask
        return 0

    cdef int need_records(self) except -1:
        cdef void **blocks = <void **>PyMem_Realloc(self.blocks, (self.block_count + 1) * sizeof(void *))
        cdef Record *block
        cdef size_t at
        if blocks is NULL:
            raise MemoryError
        self.blocks = blocks
        block = <Record *>PyMem_Malloc(BLOCK_RECORDS * sizeof(Record))
        if block is NULL:
            raise MemoryError
        self.blocks[self.block_count] = block
        self.block_count += 1
        # the first record of a block is the first to be used: tasks made together lie together
        for at in range(BLOCK_RECORDS, 0, -1):
            block[at - 1].task, block[at - 1].number = <PyObject *>self.spare, 0
            self.spare = &block[at - 1]
        return 0

    cdef int need_site(self, uint32_t site) except -1:
        cdef uint32_t count = max(2 * self.site_count, site + 1, 16)
        cdef SiteCounts *wider = <SiteCounts *>PyMem_Realloc(self.by_site, count * sizeof(SiteCounts))
        if wider is NULL:
            raise MemoryError
        self.by_site = wider
        memset(&self.by_site[self.site_count], 0, (count - self.site_count) * sizeof(SiteCounts))
        self.site_count = count
        return 0

    # --- to be read

    @property
    def live(self):
        """The number of tasks with a record."""
        return self.count

    def outcomes(self):
        """Return the counts of ended tasks, as `Outcomes`."""
        cdef uint64_t[4] ended
        cdef uint32_t site
        cdef int outcome
        memset(ended, 0, sizeof(ended))
        for site in range(self.site_count):
            for outcome in range(4):
                ended[outcome] += self.by_site[site].ended[outcome]
        return outcomes_of(ended)

    @property
    def latency(self):
        """The times from birth to end of all tasks, as a `Histogram` of its own."""
        cdef Histogram total = Histogram()
        cdef uint32_t site
        for site in range(self.site_count):
            if self.by_site[site].latency is not NULL:
                add_all(total, <Histogram>self.by_site[site].latency)
        return total

    def times_ns(self):
        """Return the time that all tasks, live ones too, have spent (running, ready), in nanoseconds."""
        cdef int64_t running_ns = 0, ready_ns = 0
        cdef size_t at
        cdef uint32_t site
        cdef Record *record
        for site in range(self.site_count):
            running_ns += self.by_site[site].running_ns
            ready_ns += self.by_site[site].ready_ns
        for at in range(self.block_count * BLOCK_RECORDS):
            record = self.record_at(at)
            if record.number:
                running_ns += record.running_ns
                ready_ns += record.ready_ns
        return running_ns, ready_ns

    def site_counts(self):
        """Return a `SiteRow` for each site with tasks."""
        cdef uint32_t site
        cdef size_t at
        cdef Record *record
        # of live tasks
        cdef SiteCounts *now = <SiteCounts *>PyMem_Calloc(max(self.site_count, <uint32_t>1), sizeof(SiteCounts))
        if now is NULL:
            raise MemoryError
        try:
            for at in range(self.block_count * BLOCK_RECORDS):
                record = self.record_at(at)
                if record.number:
                    now[record.site].created += 1
                    now[record.site].running_ns += record.running_ns
                    now[record.site].ready_ns += record.ready_ns
            return [
                self.site_row(site, &now[site]) for site in range(self.site_count) if self.by_site[site].created
            ]
        finally:
            PyMem_Free(now)

    cdef object site_row(self, uint32_t site, SiteCounts *now):
        # a copy: to make a tuple may collect garbage, and a finalizer may make tasks at new sites
        cdef SiteCounts counts = self.by_site[site]
        running_ns, ready_ns = counts.running_ns + now.running_ns, counts.ready_ns + now.ready_ns
        latency = None if counts.latency is NULL else <object>counts.latency
        step, schedule = self.steps_of(site)
        ended = outcomes_of(counts.ended)
        return row(
            SiteRow, (site, counts.created, ended, now.created, running_ns, ready_ns, latency, step, schedule)
        )

    def steps_of(self, uint32_t site):
        """Return the `Histogram` of a site's steps and that of its times from ready to running, of level TRACE, or None."""
        if site >= self.steps_count or self.steps_by_site[site].schedule is NULL:
            return None, None
        return <object>self.steps_by_site[site].step, <object>self.steps_by_site[site].schedule

    def sweep(self, int64_t now_ns):
        """End the records whose tasks were collected. Return a `LostRow` for each. `now_ns` is the present time."""
        return self.take_out(now_ns, True)

    def abandon(self, int64_t now_ns):
        """End all records, for their loop is closed. Return a `LostRow` for each. `now_ns` is the present time."""
        return self.take_out(now_ns, False)

    cdef list take_out(self, int64_t now_ns, bint only_gone):
        cdef size_t at = 0
        cdef uint64_t number
        cdef Record *record
        found = []
        # to make a tuple or let go of a stack may run code, and that add blocks or end this very record
        while at < self.block_count * BLOCK_RECORDS:
            record = self.record_at(at)
            at += 1
            if not record.number or (only_gone and not is_gone(record)):
                continue
            stack = None if record.stack is NULL else <object>record.stack
            number = record.number
            lost = row(LostRow, (number, record.site, record.born_ns, record.steps, stack, <object>record.weak))
            if record.number == number:
                found.append(lost)
                self.end(record, LOST, now_ns)
        return found

    def overdue(self, int64_t now_ns, list most_ns not None, Py_ssize_t limit):
        """Return weak references to tasks older than their site's `most_ns` (0: no bound), each once, `limit` at most."""
        cdef size_t at
        cdef Record *record
        cdef int64_t bound_ns
        found = []
        for at in range(self.block_count * BLOCK_RECORDS):
            record = self.record_at(at)
            if not record.number or record.is_reported or record.site >= <uint32_t>len(most_ns):
                continue
            bound_ns = most_ns[record.site]
            if bound_ns and record.born_ns and now_ns - record.born_ns > bound_ns:
                record.is_reported = True
                found.append(<object>record.weak)
                if len(found) == limit:
                    break
        return found

    def waiting(self, int64_t since_ns, size_t start, Py_ssize_t limit):
        """Return (weak references to tasks that have waited since before `since_ns`, `limit` at most; the next `start`).

        `start` is 0 for the first call. The next `start` is 0 when no task is left.
        """
        cdef size_t at
        cdef Record *record
        found = []
        for at in range(start, self.block_count * BLOCK_RECORDS):
            record = self.record_at(at)
            if record.number and record.state == WAITING and record.since_ns < since_ns:
                found.append(<object>record.weak)
                if len(found) == limit:
                    return found, at + 1
        return found, 0

    def weak_at(self, size_t at, uint64_t number):
        """Return the weak reference to the live task with this number, whose record has this index; None if it ended."""
        cdef Record *record
        if at >= self.block_count * BLOCK_RECORDS:
            return None
        record = self.record_at(at)
        return <object>record.weak if number and record.number == number else None

    def ended_times_ns(self):
        """Return the time that the ended tasks have spent (running, ready), in nanoseconds."""
        cdef int64_t running_ns = 0, ready_ns = 0
        cdef uint32_t site
        for site in range(self.site_count):
            running_ns += self.by_site[site].running_ns
            ready_ns += self.by_site[site].ready_ns
        return running_ns, ready_ns

    def ended_site_counts(self):
        """Return a `SiteRow` for each site with tasks, without the live ones: their number is 0, and their times lack."""
        cdef uint32_t site
        cdef SiteCounts none
        memset(&none, 0, sizeof(none))
        return [self.site_row(site, &none) for site in range(self.site_count) if self.by_site[site].created]

    def numbered(self, uint64_t number):
        """Return the `TaskRow` of the live task with this number; None without one."""
        cdef size_t at
        cdef Record *record
        for at in range(self.block_count * BLOCK_RECORDS):
            record = self.record_at(at)
            if record.number == number and number:
                return task_row(record[0])
        return None

    def forget(self):
        """Drop every record as if its task had never been counted."""
        cdef size_t at = 0
        cdef Record *record
        while at < self.block_count * BLOCK_RECORDS:
            record = self.record_at(at)
            at += 1
            if not record.number:
                continue
            self.created -= 1
            self.by_site[record.site].created -= 1
            self.by_site[record.site].ended[LOST] -= 1
            self.end(record, LOST, 0)

    def snapshot(self, int64_t now_ns):
        """Return a copy of all records."""
        return LedgerSnapshot(self, now_ns)


cdef object task_row(Record record):
    """Return a copy of a record, whose references are alive, as a `TaskRow`."""
    weak, stack = <object>record.weak, None if record.stack is NULL else <object>record.stack
    return row(TaskRow, (
        record.number, weak, record.site, record.born_ns, record.since_ns, record.state, record.running_ns,
        record.ready_ns, record.steps, stack,
    ))


cdef class LedgerSnapshot:
    """A copy of the records of a ledger: a sequence whose items are made on access.

    Ownership: it owns a weak reference and the creation stack of each. It keeps no task alive.
    """

    def __cinit__(self, Ledger ledger not None, int64_t now_ns):
        cdef size_t at
        cdef Record *record
        self.taken_ns = now_ns
        self.records = <Record *>PyMem_Malloc(max(ledger.count, 1) * sizeof(Record))
        if self.records is NULL:
            raise MemoryError
        for at in range(ledger.block_count * BLOCK_RECORDS):
            record = ledger.record_at(at)
            if not record.number:
                continue
            self.records[self.count] = record[0]
            Py_INCREF(<object>record.weak)
            Py_XINCREF(record.stack)
            self.count += 1

    def __dealloc__(self):
        cdef Py_ssize_t at
        if self.records is not NULL:
            for at in range(self.count):
                Py_XDECREF(self.records[at].weak)
                Py_XDECREF(self.records[at].stack)
            PyMem_Free(self.records)

    def __len__(self):
        return self.count

    def __getitem__(self, Py_ssize_t at):
        """Return the record at an index, as a `TaskRow`. IndexError beyond the last."""
        if not 0 <= at < self.count:
            raise IndexError(at)
        return task_row(self.records[at])
