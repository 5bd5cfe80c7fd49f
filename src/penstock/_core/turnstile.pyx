"""A semaphore's permits where nobody waits: taken and given back without a coroutine. Knows no loop and no future.

What waits, and how, is a subclass's: `_line` is whatever it keeps its waiters in, empty when none does, `_wait()` waits
for a permit, and `_wake_next()` hands one on.
"""

__all__ = ["Turnstile"]


cdef class Done:
    """An awaitable that is done: `await` goes on at once."""

    def __await__(self):
        return self

    def __iter__(self):
        return self

    def __next__(self):
        raise StopIteration


cdef Done DONE = Done()


cdef class Turnstile:
    """Permits to be had (`_value`, never above `_bound_value`), and how many were handed to tasks that have not run.

    Ownership: plain references, no cycles of its own.
    """

    def __init__(self, Py_ssize_t value, Py_ssize_t bound, line):
        self._value = value
        self._bound_value = bound
        self._granted = 0
        self._line = line

    def _take(self):
        """Take a permit if there is one and nobody is before; whether it was taken."""
        if self._value > 0 and not self._granted and not self._line:
            self._value -= 1
            return True
        return False

    def release(self):
        """Give a permit back; the first that waits gets it. ValueError beyond the bound, if there is one."""
        self.give()

    def __aenter__(self):
        if self._value > 0 and not self._granted and not self._line:
            self._value -= 1
            return DONE
        return self._wait()

    def __aexit__(self, kind, problem, traceback):
        self.give()
        return DONE

    cdef int give(self) except -1:
        if self._value >= self._bound_value:
            raise ValueError("BoundedSemaphore released too many times")
        self._value += 1
        if self._line:
            self._wake_next()
        return 0
