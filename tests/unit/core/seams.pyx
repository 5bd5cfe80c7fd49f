"""What transports do with a budget, a wheel and the poller, for tests to do: it is C from end to end, and no transport
is needed.

Built in place beside the core (`setup.py`), and in no package that is shipped.
"""

cimport cython
from cpython.object cimport PyObject
from libc.stdint cimport int64_t, uint32_t

from penstock._core._sys.epoll cimport EPOLLET, EPOLLIN
from penstock._core.limits.budget cimport Account, Budget, charge
from penstock._core.events.poller cimport Source
from penstock._core.reactor cimport Reactor
from penstock._core.tasks.layout cimport Layout, layout
from penstock._core.tasks.stack cimport is_verified
from penstock._core.tasks.watchdog cimport WatchedLoop
from penstock._core.limits.wheel cimport WheelEntry, Wheel, is_armed


@cython.no_gc_clear
cdef class Stake:
    """Bytes that something other than a transport keeps; `owner._budget_changed()` is called when it is paused or resumed.

    Ownership: the stake owns its owner, and leaves the budget when it is closed or goes.
    """
    cdef Account account
    cdef Budget budget
    cdef object owner

    def __cinit__(self, Budget budget not None, owner):
        self.budget, self.owner = budget, owner
        self.account.owner = <PyObject *>owner

    def __dealloc__(self):
        self.budget.leave(&self.account)

    def set(self, size_t size_bytes):
        """Say how many bytes there are now."""
        charge(self.budget, &self.account, <Py_ssize_t>size_bytes - <Py_ssize_t>self.account.size_bytes)
        self.budget.account(&self.account)

    def close(self):
        """Take all bytes out, for good."""
        self.budget.leave(&self.account)
        self.budget.balance(False)

    @property
    def paused(self):
        """Whether it is to take in nothing more."""
        return self.account.is_paused

    @property
    def rank(self):
        """The size class."""
        return self.account.rank


@cython.no_gc_clear
cdef class Deadline:
    """One deadline on a wheel, by a name: what a transport has inside itself."""
    cdef WheelEntry at
    cdef Wheel wheel
    cdef readonly object name

    def __cinit__(self, Wheel wheel not None, name):
        self.wheel, self.name = wheel, name
        self.at.owner = <PyObject *>self

    def __dealloc__(self):
        self.wheel.cancel(&self.at)

    def arm(self, int64_t at_ns):
        """Set or move it, in nanoseconds."""
        self.wheel.arm(&self.at, at_ns)

    def cancel(self):
        """Nothing happens if it is not armed."""
        self.wheel.cancel(&self.at)

    @property
    def armed(self):
        """Whether it is still to come."""
        return is_armed(&self.at)


def take_due(Wheel wheel not None, int64_t now_ns):
    """Take the names of what is due, in no order, as the loop does in a turn."""
    cdef WheelEntry *due = wheel.pop(now_ns)
    found = []
    while due is not NULL:
        found.append((<Deadline>due.owner).name)
        due = wheel.pop(now_ns)
    return found


cdef class Raiser(Source):
    """An edge-triggered source of a loop whose `on_events` raises, as often as it is told; it counts what it is told."""
    cdef readonly int told
    cdef object error
    cdef int errors_left

    def __init__(self, Reactor loop not None, int fd, error=None, int errors=0):
        self.fd, self.error, self.errors_left = fd, error, errors
        loop.io.poller.add(self, EPOLLIN | EPOLLET)

    cdef int on_events(self, uint32_t events) except -1:
        if self.errors_left:
            self.errors_left -= 1
            raise self.error
        self.told += 1
        return 0

    def leave(self, Reactor loop not None):
        """Take it out of the loop."""
        loop.io.poller.remove(self)


def sizes(Reactor loop not None):
    """How many the loop has room for: (ready handles, timers, descriptors)."""
    return loop.io.ready.mask + 1, loop.timers.size, loop.io.poller.size


def is_seen(WatchedLoop watched not None):
    """Return whether the watchdog has looked at the turn that the loop is in."""
    return (
        watched.observation.then.turn_number == watched.heartbeat.turn_number
        and watched.observation.then.turn_since_ns == watched.heartbeat.turn_since_ns
        and watched.observation.last.at_ns >= watched.heartbeat.turn_since_ns > 0
    )


cdef Layout known = layout


def forget_layout():
    """Make the core meet an interpreter whose tasks and frames are laid out in an unknown way."""
    global is_verified
    layout.state = layout.exception = layout.step_task = 0
    is_verified = False


def remember_layout():
    """Undo `forget_layout`."""
    global is_verified, layout
    layout.state, layout.exception, layout.step_task = known.state, known.exception, known.step_task
    is_verified = True
