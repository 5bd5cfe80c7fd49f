# The words that a loop's thread writes as it runs, for a watchdog that reads them without the GIL.
from cpython.object cimport PyObject
from libc.stdint cimport int64_t, uint64_t
from penstock._core.tasks.audit cimport Audited

cdef extern from *:
    """
    /* The compiler keeps what is before it before it; the processor's own delay is nanoseconds: see `begin_turn`. */
    #define penstock_in_order() __atomic_signal_fence(__ATOMIC_SEQ_CST)
    """
    void in_order "penstock_in_order"() noexcept nogil
    void set_time "__atomic_store_n"(int64_t *word, int64_t value, int order) noexcept nogil
    int RELEASE "__ATOMIC_RELEASE"


cdef struct Span:
    # The beginning and the end of something, in ns on the monotonic clock; zeros: there was none.
    int64_t since_ns, until_ns


cdef class WakeEvent:
    # An eventfd; the wake event owns it.
    cdef int fd

    cdef int reopen(self) except -1
    cdef void ring(self) noexcept nogil


cdef class SchedulerStats:
    # A thread's file in /proc, and which thread's, 0 before the first; the schedule owns it. The number of the file stays
    # while it is replaced, since another thread may be reading it.
    cdef int fd, thread

    cdef void follow(self, int thread) noexcept nogil


cdef class Heartbeat:
    # When the turn that runs callbacks now began, in ns on the monotonic clock; 0 while the loop waits or stands still.
    cdef int64_t turn_since_ns
    # When the callback that runs now began; 0 between callbacks.
    cdef int64_t callback_since_ns
    # Turns that ran something, and callbacks of the present turn that have ended.
    cdef uint64_t turn_number, callbacks_done
    # The running handle, borrowed from the reactor, which holds it meanwhile: to be read with the GIL only.
    cdef PyObject *running
    # The same, owned, where Python writes the heartbeat.
    cdef object held
    # The loop's thread while it runs: `threading.get_ident()`, 0 else.
    cdef unsigned long thread_id
    # The same thread as the kernel numbers it, and the clock of its CPU time; 0 while the loop does not run. Kept as
    # numbers, since of a thread that is gone the kernel then says so, while a `pthread_t` would point to freed memory.
    cdef int native_id, cpu_clock
    # Called in the loop's thread as a run begins, by a watchdog; None: not watched.
    cdef public object on_enter
    # Set by a watchdog before it stops checking a loop at rest: the next turn then wakes the watchdog.
    cdef int rings
    cdef WakeEvent wake_event
    # Opened as a run begins, in the loop's thread: descriptors do not come and go while the loop runs. None: not watched.
    cdef SchedulerStats schedule
    # A callback or turn of this length is a stall. The newest of each is kept, so that a watchdog learns its exact end.
    cdef int64_t stall_ns
    cdef Span stalled_callback, stalled_turn
    # The newest blocking call of the loop's thread, recorded while the loop runs if `names_calls`.
    cdef Audited audited
    cdef readonly bint names_calls

    cpdef int enter(self) except -1
    cpdef int leave(self) except -1


cdef inline void note_stall(Heartbeat heartbeat, Span *span, int64_t since_ns, int64_t now_ns) noexcept:
    """Note the end of a stall, and wake the watchdog, which reports its length."""
    if since_ns == 0:
        return
    # A reader that finds the beginning it knows then finds the end that belongs to it.
    set_time(&span.since_ns, 0, RELEASE)
    set_time(&span.until_ns, now_ns, RELEASE)
    set_time(&span.since_ns, since_ns, RELEASE)
    if heartbeat.wake_event is not None:
        heartbeat.wake_event.ring()


# The reactor's writes at each edge. A reader reads a turn's number and time twice, so it takes no two turns for one.
cdef inline void begin_turn(Heartbeat heartbeat, int64_t now_ns) noexcept:
    heartbeat.callbacks_done = 0
    heartbeat.turn_number += 1
    heartbeat.turn_since_ns = now_ns
    # The watchdog sets `rings`, and checks once more a good while later before it sleeps: if the word is not seen here, then
    # the words written above are seen there.
    in_order()
    if heartbeat.rings:
        heartbeat.rings = 0
        if heartbeat.wake_event is not None:
            heartbeat.wake_event.ring()


cdef inline void end_turn(Heartbeat heartbeat, int64_t now_ns) noexcept:
    """`now_ns` is 0 where the time is not known."""
    if now_ns - heartbeat.turn_since_ns >= heartbeat.stall_ns:
        note_stall(heartbeat, &heartbeat.stalled_turn, heartbeat.turn_since_ns, now_ns)
    heartbeat.turn_since_ns = heartbeat.callback_since_ns = 0
    heartbeat.running = NULL


cdef inline void begin_callback(Heartbeat heartbeat, PyObject *running, int64_t now_ns) noexcept:
    heartbeat.running = running
    heartbeat.callback_since_ns = now_ns


cdef inline void end_callback(Heartbeat heartbeat, int64_t now_ns) noexcept:
    """End the callback, before the reactor releases its handle."""
    if now_ns - heartbeat.callback_since_ns >= heartbeat.stall_ns:
        note_stall(heartbeat, &heartbeat.stalled_callback, heartbeat.callback_since_ns, now_ns)
    heartbeat.callback_since_ns = 0
    heartbeat.running = NULL
    heartbeat.callbacks_done += 1
