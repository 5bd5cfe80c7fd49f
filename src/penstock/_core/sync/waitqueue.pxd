cimport cython

from penstock._core.sync.waiting cimport Waiting

cdef int CLASSES


@cython.final
cdef class Waiter(Waiting):
    cdef public object entry, timer
    cdef public int priority
    cdef public double queued_s, arrived_s, deadline_s
    cdef Waiter older, newer, before, after
    cdef KeyQueue queue

    cdef void stop_timer(self) except *


@cython.final
cdef class KeyQueue:
    cdef object key
    cdef Py_ssize_t count
    cdef Waiter first, last
    cdef KeyQueue behind, ahead


@cython.final
cdef class PriorityClass:
    cdef Py_ssize_t count, key_count
    cdef Waiter oldest, newest
    cdef KeyQueue next_queue, last_queue, heaviest
    cdef dict queues

    @cython.locals(queue=KeyQueue)
    cdef void add(self, Waiter waiter) except *
    @cython.locals(queue=KeyQueue, older=Waiter, newer=Waiter, before=Waiter, after=Waiter)
    cdef void remove(self, Waiter waiter) except *
    cdef void forget(self, object key) except *
    cdef void link(self, KeyQueue queue) except *
    @cython.locals(ahead=KeyQueue, behind=KeyQueue)
    cdef void unlink(self, KeyQueue queue) except *
    @cython.locals(queue=KeyQueue, waiter=Waiter)
    cdef Waiter take(self, bint newest_first)
    @cython.locals(queues=Py_ssize_t)
    cdef Py_ssize_t share(self, object key) except -1
    @cython.locals(queue=KeyQueue)
    cdef Py_ssize_t queued(self, object key) except -1
    @cython.locals(queued=Py_ssize_t, others=Py_ssize_t)
    cdef Py_ssize_t before_next(self, object key) except -1


@cython.final
cdef class WaitQueue:
    cdef readonly Py_ssize_t count
    cdef list classes

    @cython.locals(one_class=PriorityClass)
    cdef void push(self, Waiter waiter) except *
    @cython.locals(one_class=PriorityClass)
    cdef void remove(self, Waiter waiter) except *
    @cython.locals(one_class=PriorityClass)
    cdef Waiter take(self, bint newest_first)
    @cython.locals(one_class=PriorityClass)
    cdef Py_ssize_t critical_count(self) except -1
    @cython.locals(one_class=PriorityClass, found=Waiter, waiter=Waiter)
    cdef Waiter oldest(self)
    @cython.locals(one_class=PriorityClass, count=Py_ssize_t, at=int)
    cdef Py_ssize_t before_next(self, int priority, object key) except -1
    @cython.locals(one_class=PriorityClass, queued=Py_ssize_t)
    cdef bint is_over_share(self, int priority, object key) except -1
    @cython.locals(one_class=PriorityClass, at=int)
    cdef Waiter lowest_newest(self, int priority)
    @cython.locals(one_class=PriorityClass, queue=KeyQueue)
    cdef Waiter heaviest_newest(self, int priority, object key)
