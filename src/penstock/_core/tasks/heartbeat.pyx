"""The heartbeat: the words that a loop's thread writes as it runs. The reactor writes them, the watchdog reads them.

They are plain memory, written by one thread and read by another without a lock: a reader may see one a moment late.
"""

import threading

from penstock._core.tasks.rows import AuditedCall, HeartbeatRow

from cpython.object cimport PyObject

from cpython.exc cimport PyErr_SetFromErrno
from posix.unistd cimport close

from penstock._core._sys.python cimport row
from penstock._core._sys.epoll cimport EFD_CLOEXEC, EFD_NONBLOCK, eventfd, eventfd_write
from penstock._core._sys.threads cimport open_schedule, own_cpu_clock, own_thread_number, replace_fd
from penstock._core.events.clock cimport now_ns
from penstock._core.tasks.audit cimport event_name, follow_calls, install_hook


cdef int64_t NEVER_NS = (<int64_t>1 << 62)


cdef class WakeEvent:
    """An eventfd that wakes a sleeping watchdog: at a loop's first turn after a rest, and at changes of its list."""

    def __cinit__(self):
        self.fd = -1
        self.reopen()

    cdef int reopen(self) except -1:
        """Take a descriptor of its own, in place of the one that a fork has shared."""
        if self.fd >= 0:
            close(self.fd)
        self.fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)
        if self.fd < 0:
            PyErr_SetFromErrno(OSError)
        return 0

    cdef void ring(self) noexcept nogil:
        eventfd_write(self.fd, 1)

    def __dealloc__(self):
        if self.fd >= 0:
            close(self.fd)


cdef class SchedulerStats:
    """The kernel's count of a thread's time on run queues: a file that is read at each check."""

    def __cinit__(self):
        self.fd = -1

    cdef void follow(self, int thread) noexcept nogil:
        """Read the statistics of this thread from now on; of none if its file cannot be opened."""
        if thread == self.thread:
            return
        self.thread = 0
        if replace_fd(&self.fd, open_schedule(thread)):
            self.thread = thread

    def __dealloc__(self):
        if self.fd >= 0:
            close(self.fd)


cdef class Heartbeat:
    """The heartbeat of one loop. Python reads it; tests write it."""

    def __cinit__(self):
        self.stall_ns = NEVER_NS
        self.audited.callback_since_ns = &self.callback_since_ns
        self.audited.event = -1

    cpdef int enter(self) except -1:
        """Begin a run of the loop in this thread."""
        self.turn_since_ns = self.callback_since_ns = 0
        self.running = NULL
        self.native_id, self.cpu_clock = own_thread_number(), own_cpu_clock()
        if self.schedule is not None:
            self.schedule.follow(self.native_id)
        self.thread_id = threading.get_ident()
        if self.names_calls:
            follow_calls(&self.audited)
        if self.on_enter is not None:
            self.on_enter()
        return 0

    cpdef int leave(self) except -1:
        """End the run of the loop."""
        self.thread_id = 0
        if self.names_calls:
            follow_calls(NULL)
        end_turn(self, 0)
        self.native_id = self.cpu_clock = 0
        return 0

    def read(self):
        """Return the words as they are now, as a `HeartbeatRow`. Any thread may call it."""
        return row(HeartbeatRow, (
            self.turn_since_ns, self.callback_since_ns, self.turn_number, self.callbacks_done, self.thread_id,
        ))

    def name_calls(self):
        """Record the blocking calls of the loop's thread, from its next run on. It adds the process's audit hook."""
        install_hook()
        self.names_calls = True

    def call(self, since_ns):
        """Return the newest blocking call that began at `since_ns` or later, as an `AuditedCall`; else None."""
        cdef Audited *audited = &self.audited
        if audited.event < 0 or audited.newest_ns < since_ns:
            return None
        return row(AuditedCall, (event_name(audited.event), audited.count, audited.first_ns, audited.newest_ns))

    def ended(self, bint is_turn, since_ns):
        """Return the end of the newest stall if it began at `since_ns`, else None."""
        cdef Span span = self.stalled_turn if is_turn else self.stalled_callback
        return span.until_ns if span.since_ns == since_ns else None

    def running_now(self):
        """Return the handle, transport or listener that runs now, or None."""
        return None if self.running is NULL else <object>self.running

    def write(self, turn_since_ns, callback_since_ns, turn_number, callbacks_done, thread_id):
        """Set all words; for tests."""
        self.turn_since_ns, self.callback_since_ns = turn_since_ns, callback_since_ns
        self.turn_number, self.callbacks_done, self.thread_id = turn_number, callbacks_done, thread_id

    # The edges as the reactor writes them; for tests, and for loops that are driven by hand.

    def begin_turn(self):
        """Begin a turn that runs something."""
        begin_turn(self, now_ns())

    def end_turn(self):
        """End the turn."""
        end_turn(self, now_ns())
        self.held = None

    def begin_callback(self, running):
        """Begin to run `running`."""
        self.held = running
        begin_callback(self, <PyObject *>running, now_ns())

    def end_callback(self):
        """End the callback."""
        end_callback(self, now_ns())
        self.held = None
