cimport cython

from penstock._core.sync.waiting cimport Waiting

cdef int CLASSES


@cython.final
cdef class Waiter(Waiting):
    cdef public object entry, timer
    cdef public int priority
    cdef public double queued_s, arrived_s, deadline_s
    cdef Waiter older, newer, before, after
    cdef Line line

    cdef void stop_timer(self) except *


@cython.final
cdef class Line:
    cdef object key
    cdef Py_ssize_t count
    cdef Waiter first, last
    cdef Line behind, ahead


@cython.final
cdef class Rank:
    cdef Py_ssize_t count, line_count
    cdef Waiter oldest, newest
    cdef Line turn, end, heaviest
    cdef dict lines

    @cython.locals(line=Line)
    cdef void add(self, Waiter waiter) except *
    @cython.locals(line=Line, older=Waiter, newer=Waiter, before=Waiter, after=Waiter)
    cdef void drop(self, Waiter waiter) except *
    cdef void forget(self, object key) except *
    cdef void join(self, Line line) except *
    @cython.locals(ahead=Line, behind=Line)
    cdef void part(self, Line line) except *
    @cython.locals(line=Line, waiter=Waiter)
    cdef Waiter take(self, bint newest_first)
    @cython.locals(lines=Py_ssize_t)
    cdef Py_ssize_t share(self, object key) except -1
    @cython.locals(line=Line)
    cdef Py_ssize_t held(self, object key) except -1
    @cython.locals(held=Py_ssize_t, others=Py_ssize_t)
    cdef Py_ssize_t before_next(self, object key) except -1


@cython.final
cdef class WaitQueue:
    cdef readonly Py_ssize_t count
    cdef list ranks

    @cython.locals(rank=Rank)
    cdef void push(self, Waiter waiter) except *
    @cython.locals(rank=Rank)
    cdef void remove(self, Waiter waiter) except *
    @cython.locals(rank=Rank)
    cdef Waiter take(self, bint newest_first)
    @cython.locals(rank=Rank)
    cdef Py_ssize_t critical_count(self) except -1
    @cython.locals(rank=Rank, found=Waiter, waiter=Waiter)
    cdef Waiter oldest(self)
    @cython.locals(rank=Rank, count=Py_ssize_t, at=int)
    cdef Py_ssize_t before_next(self, int priority, object key) except -1
    @cython.locals(rank=Rank, held=Py_ssize_t)
    cdef bint is_over_share(self, int priority, object key) except -1
    @cython.locals(rank=Rank, at=int)
    cdef Waiter lowest_newest(self, int priority)
    @cython.locals(rank=Rank, line=Line)
    cdef Waiter heaviest_newest(self, int priority, object key)
