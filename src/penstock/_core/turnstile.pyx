"""A semaphore's permits: taken and given back without a coroutine where nobody waits, else handed to the first.

How one waits is a subclass's: it has `_wait()`. `_line` has the futures that wait, first come first; of those that are
done already, `passed_over` is told.
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

    def _wake_next(self):
        """Hand a permit that there is to the first that waits; whether any did."""
        return self.wake_next()

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
            self.wake_next()
        return 0

    cdef bint wake_next(self) except -1:
        line = self._line
        while line:
            future = line.popleft()
            if not future.done():
                self._value -= 1
                self._granted += 1
                future.set_result(True)
                return True
            line.passed_over()
        return False
