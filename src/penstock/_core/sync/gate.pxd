cimport cython

from penstock._core.sync.estimator cimport ServiceEstimator as Estimator
from penstock._core.sync.waiting cimport Done
from penstock._core.sync.waitqueue cimport GateWaiter as OneWaiter, WaitQueue as Queue

cdef int LIMIT, FULL, WAIT, EXPIRED, DEADLINE, SHARE, DISPLACED, CLOSED, LEFT, CRITICAL, NORMAL
cdef double EARLY_S, BUDGETED, SHORT_S
cdef int MOST_SAMPLED, SAMPLE_EVERY, MOST_RTTS
cdef double INFINITE_S, UNKNOWN_S
cdef Done DONE


cdef void check_priority(int priority) except *


@cython.final
cdef class Entry:
    cdef readonly GateCore gate
    cdef readonly int priority
    cdef readonly object key
    cdef readonly double arrived_s, deadline_s
    cdef public double started_s
    cdef public bint is_inside, is_begun
    cdef OneWaiter waiter


@cython.locals(entry=Entry)
cdef Entry new_entry(GateCore gate, int priority, object key, double arrived_s, double deadline_s)


cdef void admit_entry(Entry entry, double now_s) noexcept


cdef void end_wait(Entry entry) noexcept


cdef class GateCore:
    cdef public Py_ssize_t limit, bound, reserve, max_queued, inflight, granted, admitted, waited, most_inflight
    cdef public Py_ssize_t dropped
    cdef public double factor, max_wait_s, longest_wait_s, deadline_s, queue_budget_s
    cdef Queue queue
    cdef Estimator estimator
    cdef public list sheds, rtts_s, begins_s
    cdef public object on_shed, expires_at, loop, clock, waits, services, name, error
    cdef public bint is_closed, was_full
    cdef object timer
    cdef double timer_at_s, backlog_since_s
    cdef public double window_at_s, full_at_s, epoch_s
    cdef Py_ssize_t sampled, sample_at
    cdef dict starts
    cdef object __weakref__

    @cython.locals(now_s=double, reason=int, waiter=OneWaiter, until_s=double, is_late=bint)
    cdef object begin(self, int priority, object key, double arrived_s, double deadline_s, Entry entry)
    cdef void admit(self) except *
    cdef void bind(self) except *
    cdef void release_permit(self, bint is_bare) except *
    cdef void count_timeout(self, object kind) except *
    @cython.locals(now_s=double)
    cdef void release_entry(self, Entry entry) except *
    cdef void release_to_next(self, double now_s) except *
    @cython.locals(count=Py_ssize_t, ahead=Py_ssize_t, gap_s=double, victim=OneWaiter, reason=int)
    cdef int reason_not_to_queue(self, int priority, object key, double now_s) except -2
    cdef OneWaiter enqueue(self, OneWaiter waiter)
    cdef void withdraw(self, OneWaiter waiter) except *
    @cython.locals(room=Py_ssize_t, waiter=OneWaiter, is_critical=bint)
    cdef void grant_waiters(self, double now_s) except *
    @cython.locals(timeout_s=double, oldest=OneWaiter)
    cdef void shed_expired(self, double now_s) except *
    cdef void arm_timer(self, double at_s) except *
    cdef void shed(self, OneWaiter waiter, int reason) except *
    cdef void shed_removed(self, OneWaiter waiter, int reason) except *
    @cython.locals(oldest=OneWaiter, age_s=double)
    cdef object shed_new(self, int reason, double now_s)
    @cython.locals(retry_s=double)
    cdef object make_error(self, int reason, double age_s)
    cdef void count_shed(self, int reason) except *
    cdef void begin_sample(self) except *
    cdef void end_sample(self) except *
    @cython.locals(rtt_s=double)
    cdef void record_service(self, double started_s, double now_s) except *
    @cython.locals(before=Py_ssize_t, open_=bint)
    cpdef void update_bound(self) except *
    @cython.locals(oldest=OneWaiter)
    cpdef void shut(self) except *
    cpdef Py_ssize_t queued(self) except -1
    @cython.locals(oldest=OneWaiter)
    cpdef double oldest_wait_s(self) except -1
