"""What transports do with a budget, a wheel and the poller, for tests to do: it is C from end to end, and no transport
is needed.

Built in place beside the core (`setup.py`), and in no package that is shipped.
"""

import time

cimport cython
from cpython.object cimport PyObject
from libc.stdint cimport int64_t, uint32_t
from libc.string cimport memset

from penstock._core._sys.epoll cimport EPOLLET, EPOLLIN
from penstock._core._sys.python cimport PyBytes_FromStringAndSize
from penstock._core.limits.budget cimport Account, Budget, charge
from penstock._core.events.poller cimport Source
from penstock._core.reactor cimport Reactor
from penstock._core.tasks.layout cimport Layout, layout
from penstock._core.tasks.stack cimport is_verified
from penstock._core.tasks.watchdog cimport WatchedLoop
from penstock._core.limits.wheel cimport WheelEntry, Wheel, is_armed
from penstock._core.tls.engine cimport WANTS_INPUT, Engine
from penstock._core.tls.engines cimport make_engine, upgraded
from penstock._core.tls.libssl cimport libssl
from penstock._core.tls.openssl cimport BioEngine, bio_engine
from penstock._core.tls.transport cimport TLSTransport


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


cdef class TlsEngine:
    """An engine of TLS, with its C methods as methods of Python."""
    cdef Engine engine
    # What is fed until it is settled.
    cdef bytearray fed

    def __init__(self, context, server_side, server_hostname):
        """Make the engine for a handshake."""
        self.engine = make_engine(context, server_side, server_hostname)

    @staticmethod
    def openssl(ssl_object):
        """Upgrade a connection whose handshake is done. Return None if it does not verify."""
        cdef TlsEngine made = TlsEngine.__new__(TlsEngine)
        made.engine = bio_engine(ssl_object, ssl_object._sslobj)
        return None if made.engine is None else made

    def upgrade(self):
        """Change the engine, as a connection does after its handshake. Return whether it is another one."""
        engine, self.engine = self.engine, upgraded(self.engine)
        return self.engine is not engine

    @property
    def ssl_object(self):
        return self.engine.ssl_object

    def feed(self, bytes data not None):
        """Feed a copy; the last one's memory is filled with other bytes, as the reactor's would be."""
        self.settle()
        self.fed = bytearray(data)
        self.engine.feed(self.fed, len(self.fed))

    def settle(self):
        """Let the engine copy what is left, and spoil the memory."""
        if self.fed is not None:
            self.engine.settle()
            memset(<char *>self.fed, 0xAA, len(self.fed))
            self.fed = None

    def feed_eof(self):
        self.engine.feed_eof()

    def output(self):
        """Take the output."""
        cdef const char *start = NULL
        cdef Py_ssize_t size_bytes = self.engine.output(&start)
        taken = PyBytes_FromStringAndSize(start, size_bytes) if size_bytes else b""
        self.engine.discard_output()
        return taken

    def handshake(self):
        return self.engine.handshake()

    def shut_down(self):
        return self.engine.shut_down()

    def read(self, most_bytes=65536):
        """Return bytes, b"" after close_notify, None before more came."""
        into = bytearray(most_bytes)
        cdef Py_ssize_t count = self.engine.read(into, most_bytes)
        return None if count == WANTS_INPUT else bytes(into[:count])

    def write(self, const unsigned char[::1] data not None):
        """Return the number of bytes taken, None before more came."""
        cdef Py_ssize_t count = self.engine.write(<const char *>&data[0] if len(data) else NULL, len(data))
        return None if count == WANTS_INPUT else count

    def has_plaintext(self):
        return self.engine.has_plaintext()

    def update_key(self, int kind):
        """Ask for a KeyUpdate: 1 of the peer too, 0 not."""
        return libssl.SSL_key_update((<BioEngine?>self.engine).ssl, kind)


def engine_of(TLSTransport transport not None):
    """Return the name of the engine's class."""
    return type(transport.connection.engine).__name__


def echo(TlsEngine side not None, list records, Py_ssize_t size_bytes):
    """Let an engine return each of some messages to its peer. Return the nanoseconds for one."""
    cdef Engine engine = side.engine
    cdef bytearray into = bytearray(size_bytes)
    cdef const char *start = NULL
    cdef Py_ssize_t got, done, total = 0
    cdef bytes data
    began = time.perf_counter_ns()
    for data in records:
        engine.feed(data, len(data))
        got = done = 0
        while got < size_bytes:
            got += engine.read(<char *>into + got, size_bytes - got)
        while done < got:
            done += engine.write(<char *>into + done, got - done)
            total += engine.output(&start)
            engine.discard_output()
    engine.settle()
    return (time.perf_counter_ns() - began) / len(records)
