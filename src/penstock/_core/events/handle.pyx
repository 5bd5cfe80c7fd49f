"""Handles: scheduled callbacks in asyncio's sense, pooled, with up to three arguments held without a tuple.

Ownership: a handle owns its callback, arguments, context and loop until it is cancelled or freed. A queue with the
handle (ready queue, timer heap, inbox, watch) owns one reference to it.
"""

import inspect
import sys
import threading
from asyncio import Handle as AsyncioHandle, TimerHandle as AsyncioTimerHandle, events, format_helpers

from cpython.object cimport PyObject, PyTypeObject
from cpython.ref cimport Py_DECREF

from penstock._core._sys.python cimport (
    PY_VECTORCALL_ARGUMENTS_OFFSET,
    PyContext_CopyCurrent,
    PyContext_Enter,
    PyContext_Exit,
    PyObject_Call,
    PyObject_Vectorcall,
)


# Newer patch releases hide a callback's arguments outside debug mode.
cdef bint SOURCE_TAKES_DEBUG = "debug" in inspect.signature(format_helpers._format_callback_source).parameters


# Since 3.14 a handle that another thread may cancel orders the cancel and the call.
cdef bint CANCEL_WAITS = sys.version_info >= (3, 14)
AsyncioThreadSafeHandle = getattr(events, "_ThreadSafeHandle", AsyncioHandle)


cdef inline int pending() except -1:
    """Hand an exception that C code has set to Cython's own `try`."""
    return -1


cdef class Runnable:
    cdef int run(self) except -1:
        raise NotImplementedError


cdef class Handle(Runnable):
    """The result of `call_soon`. `isinstance(handle, asyncio.Handle)` holds."""

    cdef int run(self) except -1:
        cdef PyObject *context = <PyObject *>self.context
        cdef PyObject *stack[4]
        cdef PyObject *result
        self.is_queued = False
        if self.is_cancelled:
            return 0
        if PyContext_Enter(context) < 0:
            return self.failed()
        self.running_count += 1
        if self.arg_count < MANY:
            stack[1], stack[2], stack[3] = <PyObject *>self.arg0, <PyObject *>self.arg1, <PyObject *>self.arg2
            result = PyObject_Vectorcall(
                <PyObject *>self.callback, stack + 1, self.arg_count | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL
            )
        else:
            result = PyObject_Call(<PyObject *>self.callback, <PyObject *>self.arg0, NULL)
        PyContext_Exit(context)
        self.running_count -= 1
        if result is NULL:
            self.failed()
        else:
            Py_DECREF(<object>result)
        return self.drop() if self.is_cancelled else 0

    cdef int failed(self) except -1:
        try:
            pending()
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as exc:
            self._report(exc)
        return 0

    def _report(self, exc):
        source = format_helpers._format_callback_source(self.callback, self._args or (), **self._source_kwargs())
        context = {"message": f"Exception in callback {source}", "exception": exc, "handle": self}
        if self._source_traceback:
            context["source_traceback"] = self._source_traceback
        self.loop.call_exception_handler(context)

    cdef tuple arguments(self):
        if self.arg_count == MANY:
            return self.arg0
        return (self.arg0, self.arg1, self.arg2)[: self.arg_count]

    def _source_kwargs(self):
        return {"debug": self.loop.get_debug()} if SOURCE_TAKES_DEBUG else {}

    def cancel(self):
        """Cancel the callback: it will not run. A second call does nothing."""
        if not self.is_cancelled:
            mark_cancelled(self)
            self.drop()

    cdef int drop(self) except -1:
        """Let go of what a cancelled handle will not call."""
        if self.running_count == 0:
            self.arg_count = 0
            self.callback = self.arg0 = self.arg1 = self.arg2 = None
        return 0

    def cancelled(self):
        """Return whether `cancel` was called."""
        return bool(self.is_cancelled)

    def get_context(self):
        """The `contextvars.Context` that the callback runs in."""
        return self.context

    def _run(self):
        self.run()

    def _repr_info(self):
        info = [self.__class__.__name__]
        if self.is_cancelled:
            info.append("cancelled")
        if not self.is_cancelled:
            info.append(format_helpers._format_callback_source(self.callback, self._args, **self._source_kwargs()))
        if self._source_traceback:
            frame = self._source_traceback[-1]
            info.append(f"created at {frame[0]}:{frame[1]}")
        return info

    def __repr__(self):
        if self.debug_info is not None and self.debug_info[1] is not None:
            return self.debug_info[1]
        return f"<{' '.join(self._repr_info())}>"

    @property
    def __class__(self):
        # A native object cannot lay itself out over asyncio.Handle's slots; isinstance() asks here.
        return AsyncioHandle

    @property
    def _callback(self):
        return None if self.is_cancelled else self.callback

    @property
    def _args(self):
        return None if self.is_cancelled else self.arguments()

    @property
    def _context(self):
        return self.context

    @property
    def _cancelled(self):
        return bool(self.is_cancelled)

    @property
    def _loop(self):
        return self.loop

    @property
    def _source_traceback(self):
        return None if self.debug_info is None else self.debug_info[0]


cdef class ThreadSafeHandle(Handle):
    """The result of `call_soon_threadsafe` from Python 3.14 on: a cancel from another thread waits for a running call.

    asyncio takes a lock around each call; here the GIL orders the two, and only a thread that has to wait pays.
    """

    cdef int run(self) except -1:
        try:
            return Handle.run(self)
        finally:
            # A lock, not an Event: releasing one is C, which no Ctrl-C interrupts.
            if self.finished is not None:
                self.finished.release()
                self.finished = None

    cdef int wait_for_run(self) except -1:
        while self.running_count and self.loop._thread_id != threading.get_ident():
            if self.finished is None:
                made = threading.Lock()
                made.acquire()
                # Other threads may have run meanwhile: now nothing comes between the look and the change.
                if self.running_count and self.finished is None:
                    self.finished = made
            else:
                finished = self.finished
                with finished:
                    pass
        return 0

    def cancel(self):
        """Cancel the callback; while it runs in the loop's thread, wait for its end first."""
        self.wait_for_run()
        Handle.cancel(self)

    def cancelled(self):
        """Return whether `cancel` was called; while the callback runs in the loop's thread, wait for its end first."""
        self.wait_for_run()
        return bool(self.is_cancelled)

    @property
    def __class__(self):
        return AsyncioThreadSafeHandle


cdef class TimerQueue:
    cdef int cancelled_one(self, TimerHandle handle) except -1:
        raise NotImplementedError


cdef class TimerHandle(Handle):
    """The result of `call_later` and `call_at`. Ordered by time, as asyncio's."""

    def cancel(self):
        """Cancel the callback: it will not run. A second call does nothing."""
        if not self.is_cancelled:
            mark_cancelled(self)
            # First: to let go of the callback may run any code.
            if self.queue is not None:
                self.queue.cancelled_one(self)
            self.drop()

    def when(self):
        """The time of the callback in seconds, on the clock of `loop.time()`."""
        return self.when_s if self.given is None else self.given

    def _repr_info(self):
        info = Handle._repr_info(self)
        info.insert(2 if self.is_cancelled else 1, f"when={self.when()}")
        return info

    def __hash__(self):
        return hash(self.when_s)

    def __lt__(self, other):
        return self.when_s < other._when if isinstance(other, AsyncioTimerHandle) else NotImplemented

    def __le__(self, other):
        return self.when_s < other._when or self == other if isinstance(other, AsyncioTimerHandle) else NotImplemented

    def __gt__(self, other):
        return self.when_s > other._when if isinstance(other, AsyncioTimerHandle) else NotImplemented

    def __ge__(self, other):
        return self.when_s > other._when or self == other if isinstance(other, AsyncioTimerHandle) else NotImplemented

    def __eq__(self, other):
        if not isinstance(other, AsyncioTimerHandle):
            return NotImplemented
        return (
            self.when_s == other._when
            and self._callback == other._callback
            and self._args == other._args
            and self.is_cancelled == other._cancelled
        )

    @property
    def __class__(self):
        return AsyncioTimerHandle

    @property
    def _when(self):
        return self.when()

    @property
    def _scheduled(self):
        return self.queue is not None


cdef int mark_cancelled(Handle handle) except -1:
    if handle.debug_info is not None:
        handle.debug_info = (handle.debug_info[0], repr_cancelled(handle))
    handle.is_cancelled = True
    return 0


cdef str repr_cancelled(Handle handle):
    """Return the repr of a cancelled handle in debug mode, taken before its callback is released."""
    info = handle._repr_info()
    info.insert(1, "cancelled")
    return f"<{' '.join(info)}>"


cdef enum:
    # The most handles of a kind that are kept for reuse: as many as another thread posts while it has the GIL. Beyond
    # it each burst allocates anew, and the garbage collector passes over all of them.
    POOL_SIZE = 65536
    # As many stay while the loop waits: a busy turn's.
    KEPT_SIZE = 4096

cdef struct Pool:
    PyObject *handles[POOL_SIZE]
    int count

# Ownership: a pool owns one reference to each handle in it.
cdef Pool spare_handles, spare_timers, spare_posted

cdef extern from *:
    """
    static inline int penstock_has_weakref(PyObject *object)
    {
        return *(PyObject **)((char *)object + Py_TYPE(object)->tp_weaklistoffset) != NULL;
    }
    """
    bint has_weakref "penstock_has_weakref"(PyObject *object) noexcept
    Py_ssize_t Py_REFCNT(PyObject *object) noexcept
    PyTypeObject *Py_TYPE(PyObject *object) noexcept


cdef inline Pool *pool_of(PyObject *entry) noexcept:
    if Py_TYPE(entry) == <PyTypeObject *>Handle:
        return &spare_handles
    if Py_TYPE(entry) == <PyTypeObject *>TimerHandle:
        return &spare_timers
    return &spare_posted if Py_TYPE(entry) == <PyTypeObject *>ThreadSafeHandle else NULL


cdef inline Handle spare(Pool *pool):
    """A handle from the pool, or None."""
    if pool.count == 0:
        return None
    pool.count -= 1
    handle = <Handle>pool.handles[pool.count]
    Py_DECREF(handle)
    return handle


cdef int relax_pools() noexcept:
    relax_pool(&spare_handles)
    relax_pool(&spare_timers)
    return relax_pool(&spare_posted)


cdef inline int relax_pool(Pool *pool) noexcept:
    """Free a part of what a burst has left, so that a loop with a burst every few waits keeps most of it."""
    cdef int least
    if pool.count > KEPT_SIZE:
        least = max(pool.count - 64 - (pool.count - KEPT_SIZE) // 16, KEPT_SIZE)
        while pool.count > least:
            pool.count -= 1
            Py_DECREF(<object>pool.handles[pool.count])
    return 0


cdef int let_go(PyObject *entry) except -1:
    cdef Pool *pool = pool_of(entry)
    if pool is NULL or Py_REFCNT(entry) != 1 or pool.count == POOL_SIZE or has_weakref(entry):
        Py_DECREF(<object>entry)
        return 0
    empty(<Handle>entry)
    # Dropping what the handle held may have run any code, and filled the pool.
    if pool.count == POOL_SIZE:
        Py_DECREF(<object>entry)
    else:
        pool.handles[pool.count] = entry
        pool.count += 1
    return 0


cdef inline int empty(Handle handle) except -1:
    handle.is_cancelled = False
    handle.arg_count = 0
    handle.callback = handle.context = handle.loop = handle.debug_info = None
    handle.arg0 = handle.arg1 = handle.arg2 = None
    return 0


cdef inline int fill(
    Handle handle, object loop, object callback, PyObject *const *args, Py_ssize_t arg_count, object context
) except -1:
    handle.loop = loop
    handle.callback = callback
    handle.context = PyContext_CopyCurrent() if context is None else context
    if arg_count == 0:
        return 0
    if arg_count >= MANY:
        handle.arg0 = tuple([<object>args[i] for i in range(arg_count)])
        handle.arg_count = MANY
        return 0
    handle.arg_count = <unsigned char>arg_count
    handle.arg0 = <object>args[0]
    if arg_count > 1:
        handle.arg1 = <object>args[1]
    if arg_count > 2:
        handle.arg2 = <object>args[2]
    return 0


cdef Handle new_handle(object loop, object callback, PyObject *const *args, Py_ssize_t arg_count, object context):
    cdef Handle handle = spare(&spare_handles)
    if handle is None:
        handle = Handle.__new__(Handle)
    fill(handle, loop, callback, args, arg_count, context)
    return handle


cdef Handle new_posted_handle(
    object loop, object callback, PyObject *const *args, Py_ssize_t arg_count, object context
):
    """A handle that any thread may cancel."""
    if not CANCEL_WAITS:
        return new_handle(loop, callback, args, arg_count, context)
    cdef Handle handle = spare(&spare_posted)
    if handle is None:
        handle = ThreadSafeHandle.__new__(ThreadSafeHandle)
    fill(handle, loop, callback, args, arg_count, context)
    return handle


cdef TimerHandle new_timer(
    double when_s, object loop, object callback, PyObject *const *args, Py_ssize_t arg_count, object context
):
    cdef TimerHandle handle = <TimerHandle>spare(&spare_timers)
    if handle is None:
        handle = TimerHandle.__new__(TimerHandle)
    fill(handle, loop, callback, args, arg_count, context)
    handle.when_s = when_s
    handle.given = None
    handle.slot = -1
    return handle
