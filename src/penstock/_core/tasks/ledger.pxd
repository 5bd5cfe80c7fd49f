from cpython.object cimport PyObject
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from penstock._core.tasks.histogram cimport Histogram

cdef enum:
    READY = 0
    RUNNING = 1
    WAITING = 2

cdef enum:
    RETURNED = 0
    RAISED = 1
    CANCELED = 2
    LOST = 3


cdef enum:
    # The records in one block.
    BLOCK_RECORDS = 256


cdef struct Record:
    # Only a name: the task may be collected, and the address another object's. See `weak`.
    PyObject *task
    # Owned.
    PyObject *weak
    # Owned; where it was created, frame by frame, for some of them.
    PyObject *stack
    int64_t born_ns
    # When the present state began, and what has gone into the two that are over.
    int64_t since_ns
    int64_t running_ns, ready_ns
    uint64_t number
    uint32_t steps
    uint32_t site
    uint8_t state
    # Whether the task was reported as hung: it is reported once.
    uint8_t is_reported


cdef struct SiteCounts:
    uint64_t created
    uint64_t[4] ended
    int64_t running_ns, ready_ns
    # Owned: a Histogram of the times from birth to end. NULL until the first of the site's tasks ends.
    PyObject *latency


# The steps of one site's tasks at level TRACE. Apart from `SiteCounts`: at level TIME its size has a price.
cdef struct SiteSteps:
    # Owned Histograms: the durations, and the times from ready to running. NULL until one of the site's tasks ran.
    PyObject *step
    PyObject *schedule


cdef struct Slot:
    PyObject *task
    Record *record


cdef class Ledger:
    cdef Slot *slots
    cdef size_t mask, count
    # Records that are free, chained through `task`; and the blocks they all lie in.
    cdef Record *spare
    cdef void **blocks
    cdef size_t block_count
    cdef readonly uint64_t created, eager, steps
    cdef SiteCounts *by_site
    cdef uint32_t site_count
    # Of the first sites, as many as level TRACE has met.
    cdef SiteSteps *steps_by_site
    cdef uint32_t steps_count

    cdef Record *record_at(self, size_t at) noexcept
    cdef object site_row(self, uint32_t site, SiteCounts *now)
    cdef Record *add(self, object task, uint32_t site, int64_t born_ns, uint64_t number) except NULL
    cdef int end(self, Record *record, int outcome, int64_t now_ns) except -1
    cdef int count_birth(self, uint32_t site) except -1
    cdef int count_end(self, uint32_t site, int outcome, int64_t lived_ns) except -1
    cdef int add_step(self, uint32_t site, int64_t took_ns, int64_t waited_ns) except -1
    cdef int need_steps(self, uint32_t site) except -1
    cdef int make_latency(self, uint32_t site) except -1
    cdef int end_first(self, uint32_t site, int outcome, int64_t lived_ns, PyObject *weak, PyObject *stack) except -1
    cdef int need_site(self, uint32_t site) except -1
    cdef int grow(self) except -1
    cdef int need_records(self) except -1
    cdef int remove(self, PyObject *task) noexcept
    cdef list take_out(self, int64_t now_ns, bint only_gone)


cdef class LedgerSnapshot:
    cdef Record *records
    cdef Py_ssize_t count
    cdef readonly int64_t taken_ns


cdef extern from *:
    """
    #define penstock_referent(weak) (((PyWeakReference *)(weak))->wr_object)
    """
    PyObject *referent "penstock_referent"(PyObject *weak) noexcept


cdef inline size_t place_of(PyObject *task) noexcept:
    return (((<uint64_t>task) >> 4) * <uint64_t>0x9E3779B97F4A7C15) >> 20


cdef inline bint is_gone(Record *record) noexcept:
    return referent(record.weak) is not record.task


cdef inline Record *find(Ledger ledger, PyObject *task) noexcept:
    """Return the record with that address, which may be a former task's: see `is_gone`."""
    cdef size_t at = place_of(task) & ledger.mask
    while ledger.slots[at].task is not NULL:
        if ledger.slots[at].task is task:
            return ledger.slots[at].record
        at = (at + 1) & ledger.mask
    return NULL


cdef inline Record *find_live(Ledger ledger, PyObject *task) noexcept:
    """Return the record of a task to which the caller has a reference; NULL: it has none."""
    cdef Record *record = find(ledger, task)
    return NULL if record is NULL or is_gone(record) else record
