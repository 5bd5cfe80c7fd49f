cimport cython

from penstock._core.sync.waiting cimport Done, Waiter

cdef Done DONE


# not final: Cython then forbids what it overrides
cdef class SemaphoreWaiter(Waiter):
    cdef SemaphoreWaiter before, after

    @cython.locals(turnstile=Turnstile)
    cdef bint start(self) except -1
    @cython.locals(turnstile=Turnstile)
    cdef void admitted(self) except *
    @cython.locals(turnstile=Turnstile)
    cdef void abandoned(self) except *
    @cython.locals(turnstile=Turnstile)
    cdef void forfeited(self) except *
    @cython.locals(turnstile=Turnstile)
    cdef void finished(self) except *


@cython.locals(waiter=SemaphoreWaiter)
cdef SemaphoreWaiter new_waiter(Turnstile turnstile)


cdef class Turnstile:
    cdef public Py_ssize_t _value, _bound_value, _granted, _unfinished
    cdef SemaphoreWaiter first, last

    cdef bint take(self) noexcept
    cdef void give_back(self) except *
    @cython.locals(waiter=SemaphoreWaiter)
    cdef void grant_next(self) except *
    cdef void waiter_finished(self) except *
    cdef void append(self, SemaphoreWaiter waiter) noexcept
    @cython.locals(before=SemaphoreWaiter, after=SemaphoreWaiter)
    cdef void remove(self, SemaphoreWaiter waiter) noexcept
