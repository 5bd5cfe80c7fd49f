cimport cython

from penstock._core.sync.waiting cimport Waiter

cdef int CLASSES


@cython.final
cdef class GateWaiter(Waiter):
    cdef public object entry, timer
    cdef public int priority
    cdef public double queued_s, arrived_s, deadline_s
    cdef GateWaiter older, newer, before, after
    cdef KeyQueue key_queue

    cdef void cancel_timer(self) except *


@cython.final
cdef class KeyQueue:
    cdef object key
    cdef Py_ssize_t count
    cdef GateWaiter first, last
    cdef KeyQueue previous, following


@cython.final
cdef class PriorityClass:
    cdef Py_ssize_t count, key_count
    cdef GateWaiter oldest, newest
    cdef KeyQueue first, last, longest
    cdef dict key_queues

    @cython.locals(queue=KeyQueue)
    cdef void append(self, GateWaiter waiter) except *
    @cython.locals(queue=KeyQueue, older=GateWaiter, newer=GateWaiter, before=GateWaiter, after=GateWaiter)
    cdef void remove(self, GateWaiter waiter) except *
    cdef void discard(self, object key) except *
    cdef void link(self, KeyQueue queue) except *
    @cython.locals(previous=KeyQueue, following=KeyQueue)
    cdef void unlink(self, KeyQueue queue) except *
    @cython.locals(queue=KeyQueue, waiter=GateWaiter)
    cdef GateWaiter pop(self, bint newest_first)
    @cython.locals(keys=Py_ssize_t)
    cdef Py_ssize_t fair_share(self, object key) except -1
    @cython.locals(queue=KeyQueue)
    cdef Py_ssize_t queued_of(self, object key) except -1
    @cython.locals(own=Py_ssize_t, others=Py_ssize_t)
    cdef Py_ssize_t count_ahead(self, object key) except -1


@cython.final
cdef class WaitQueue:
    cdef readonly Py_ssize_t count
    cdef list classes

    @cython.locals(own_class=PriorityClass)
    cdef void push(self, GateWaiter waiter) except *
    @cython.locals(own_class=PriorityClass)
    cdef void remove(self, GateWaiter waiter) except *
    @cython.locals(each=PriorityClass)
    cdef GateWaiter pop(self, bint newest_first)
    @cython.locals(highest=PriorityClass)
    cdef Py_ssize_t critical_count(self) except -1
    @cython.locals(each=PriorityClass, found=GateWaiter, waiter=GateWaiter)
    cdef GateWaiter oldest(self)
    @cython.locals(each=PriorityClass, count=Py_ssize_t, at=int)
    cdef Py_ssize_t count_ahead(self, int priority, object key) except -1
    @cython.locals(own_class=PriorityClass, own=Py_ssize_t)
    cdef bint is_over_share(self, int priority, object key) except -1
    @cython.locals(each=PriorityClass, at=int)
    cdef GateWaiter newest_of_lowest(self, int priority)
    @cython.locals(own_class=PriorityClass, queue=KeyQueue)
    cdef GateWaiter newest_of_longest(self, int priority, object key)
