"""Handles: scheduled callbacks in asyncio's sense, free-listed, with up to three arguments held without a tuple.

Ownership: a handle owns its callback, arguments, context and loop until it is cancelled or freed. Whoever queues a
handle (ready queue, timer heap, inbox, watch) owns one reference to it.
"""

import inspect
from asyncio import Handle as AsyncioHandle, TimerHandle as AsyncioTimerHandle, format_helpers

cimport cython
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF

from penstock._core._sys.python cimport (
    PY_VECTORCALL_ARGUMENTS_OFFSET,
    PyContext_CopyCurrent,
    PyContext_Enter,
    PyContext_Exit,
    PyObject_Call,
    PyObject_Vectorcall,
)


cdef class _Unset:
    """The default of an argument that was not given: a signature with three of them needs no argument tuple."""

    def __repr__(self):
        return "UNSET"


UNSET = _Unset()

# Newer patch releases hide a callback's arguments outside debug mode.
cdef bint SOURCE_TAKES_DEBUG = "debug" in inspect.signature(format_helpers._format_callback_source).parameters


cdef inline int pending() except -1:
    """Hands an exception that C code has set to Cython's own `try`."""
    return -1


cdef class Runnable:
    cdef int run(self) except -1:
        raise NotImplementedError


@cython.freelist(1024)
cdef class Handle(Runnable):
    """What `call_soon` returns. `isinstance(handle, asyncio.Handle)` holds."""

    cdef int run(self) except -1:
        # The callback may cancel this very handle, which drops its arguments: hold what is being called with.
        callback, a, b, c, context = self.callback, self.arg0, self.arg1, self.arg2, self.context
        cdef PyObject *stack[4]
        cdef PyObject *result
        if self.is_cancelled:
            return 0
        if PyContext_Enter(<PyObject *>context) < 0:
            return self.failed()
        if self.arg_count < MANY:
            stack[1], stack[2], stack[3] = <PyObject *>a, <PyObject *>b, <PyObject *>c
            result = PyObject_Vectorcall(
                <PyObject *>callback, stack + 1, self.arg_count | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL
            )
        else:
            result = PyObject_Call(<PyObject *>callback, <PyObject *>a, NULL)
        PyContext_Exit(<PyObject *>context)
        if result is NULL:
            return self.failed()
        Py_DECREF(<object>result)
        return 0

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
        if self.is_cancelled:
            return
        if self.debug_info is not None:
            self.debug_info = (self.debug_info[0], repr_cancelled(self))
        self.is_cancelled = True
        self.callback = self.arg0 = self.arg1 = self.arg2 = None
        self.arg_count = 0

    def cancelled(self):
        """Whether `cancel` was called."""
        return self.is_cancelled

    def get_context(self):
        """The `contextvars.Context` that the callback runs in."""
        return self.context

    def _run(self):
        self.run()

    def _repr_info(self):
        info = [self.__class__.__name__]
        if self.is_cancelled:
            info.append("cancelled")
        if self.callback is not None:
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
        return self.callback

    @property
    def _args(self):
        return None if self.is_cancelled else self.arguments()

    @property
    def _context(self):
        return self.context

    @property
    def _cancelled(self):
        return self.is_cancelled

    @property
    def _loop(self):
        return self.loop

    @property
    def _source_traceback(self):
        return None if self.debug_info is None else self.debug_info[0]


cdef class TimerQueue:
    cdef int cancelled_one(self, TimerHandle handle) except -1:
        raise NotImplementedError


@cython.freelist(1024)
cdef class TimerHandle(Handle):
    """What `call_later` and `call_at` return. Ordered by time, as asyncio's."""

    def cancel(self):
        """Cancel the callback: it will not run. A second call does nothing."""
        if not self.is_cancelled:
            Handle.cancel(self)
            if self.queue is not None:
                self.queue.cancelled_one(self)

    def when(self):
        """The time of the callback in seconds, on the clock of `loop.time()`."""
        return self.when_s

    def _repr_info(self):
        info = Handle._repr_info(self)
        info.insert(2 if self.is_cancelled else 1, f"when={self.when_s}")
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
            and self.callback == other._callback
            and self._args == other._args
            and self.is_cancelled == other._cancelled
        )

    @property
    def __class__(self):
        return AsyncioTimerHandle

    @property
    def _when(self):
        return self.when_s

    @property
    def _scheduled(self):
        return self.queue is not None


cdef str repr_cancelled(Handle handle):
    """What a debug-mode handle shows once its callback is gone; its arguments are dropped by then."""
    info = handle._repr_info()
    info.insert(1, "cancelled")
    return f"<{' '.join(info)}>"


cdef inline int fill(
    Handle handle, object loop, object callback, object a, object b, object c, tuple rest, object context
) except -1:
    handle.loop = loop
    handle.callback = callback
    handle.context = PyContext_CopyCurrent() if context is None else context
    if a is UNSET:
        return 0
    handle.arg_count = 1
    handle.arg0 = a
    if b is UNSET:
        return 0
    handle.arg_count = 2
    handle.arg1 = b
    if c is UNSET:
        return 0
    handle.arg_count = 3
    handle.arg2 = c
    if rest:
        handle.arg_count = MANY
        handle.arg0, handle.arg1, handle.arg2 = (a, b, c, *rest), None, None
    return 0


cdef Handle new_handle(object loop, object callback, object a, object b, object c, tuple rest, object context):
    cdef Handle handle = Handle.__new__(Handle)
    fill(handle, loop, callback, a, b, c, rest, context)
    return handle


cdef TimerHandle new_timer(
    double when_s, object loop, object callback, object a, object b, object c, tuple rest, object context
):
    cdef TimerHandle handle = TimerHandle.__new__(TimerHandle)
    fill(handle, loop, callback, a, b, c, rest, context)
    handle.when_s = when_s
    return handle
