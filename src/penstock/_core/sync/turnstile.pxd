cimport cython

from penstock._core.sync.waiting cimport Done, Waiting

cdef Done DONE


# not final: Cython then forbids what it overrides
cdef class Turn(Waiting):
    cdef Turn before, after

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


@cython.locals(turn=Turn)
cdef Turn new_turn(Turnstile turnstile)


cdef class Turnstile:
    cdef public Py_ssize_t _value, _bound_value, _granted, _inside
    cdef Turn first, last

    cdef bint take(self) noexcept
    cdef void give(self) except *
    @cython.locals(turn=Turn)
    cdef void hand_on(self) except *
    cdef void let_in(self) except *
    cdef void join(self, Turn turn) noexcept
    @cython.locals(before=Turn, after=Turn)
    cdef void part(self, Turn turn) noexcept
