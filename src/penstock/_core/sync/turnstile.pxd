cimport cython

from penstock._core.sync.waiting cimport Done, Waiting

cdef Done DONE


# not final: Cython then forbids what it overrides
cdef class SemaphoreWaiter(Waiting):
    cdef SemaphoreWaiter before, after

    @cython.locals(turnstile=Turnstile)
    cdef bint begins(self) except -1
    @cython.locals(turnstile=Turnstile)
    cdef void resumed(self) except *
    @cython.locals(turnstile=Turnstile)
    cdef void gave_up(self) except *
    @cython.locals(turnstile=Turnstile)
    cdef void passed_on(self) except *
    @cython.locals(turnstile=Turnstile)
    cdef void ended(self) except *


@cython.locals(waiter=SemaphoreWaiter)
cdef SemaphoreWaiter new_waiter(Turnstile turnstile)


cdef class Turnstile:
    cdef public Py_ssize_t _value, _bound_value, _granted, _inside
    cdef SemaphoreWaiter first, last

    cdef bint take(self) noexcept
    cdef void give(self) except *
    @cython.locals(waiter=SemaphoreWaiter)
    cdef void hand_on(self) except *
    cdef void leave_inside(self) except *
    cdef void link(self, SemaphoreWaiter waiter) noexcept
    @cython.locals(before=SemaphoreWaiter, after=SemaphoreWaiter)
    cdef void unlink(self, SemaphoreWaiter waiter) noexcept
