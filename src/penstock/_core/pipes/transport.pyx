"""The base of pipe transports: a pipe that a program has opened, its protocol, and the way it ends.

A pipe is registered once for its whole life, edge-triggered. Only FIFOs and stream sockets come here: asyncio's code
serves terminals and other devices, whose edges are not known to suffice.

Ownership: the program's pipe object owns the descriptor, and is closed after `connection_lost`. The poller's table keeps
an open transport alive.
"""

import warnings
from asyncio import futures
from asyncio.log import logger

from cpython.exc cimport PyErr_Clear, PyErr_SetFromErrno
from cpython.object cimport PyObject
from libc.stdint cimport uint32_t

from penstock._core._sys.pipe cimport pipe_kind, unblock
from penstock._core._sys.python cimport (
    PyContext_Copy,
    PyContext_CopyCurrent,
    PyContext_Enter,
    PyContext_Exit,
    drop_dict,
)
from penstock._core.events.ready cimport push
from penstock._core.net.io_context cimport IOContext

# `except -1`, but not looked at by Cython: the context must be left with the exception set.
ctypedef int (*Handling)(PipeTransport transport, uint32_t events) noexcept


cdef class PipeTransport(Source):
    """The base of native pipe transports; made by the loop, never by users."""

    def __cinit__(self, *args, **kwargs):
        drop_dict(self)
        # until it is opened
        self.closing = self.is_ending = True

    def __init__(self, loop, IOContext io not None, pipe, protocol, waiter=None, extra=None):
        self.open(loop, io, pipe, protocol, extra)
        self.connect_protocol(waiter)

    cdef int open(self, object loop, IOContext io, object pipe, object protocol, object extra) except -1:
        """Take over an open pipe."""
        cdef int fd = pipe.fileno()
        self.kind = pipe_kind(fd)
        if unblock(fd) < 0:
            PyErr_SetFromErrno(OSError)
        self.extra = dict(extra or {})
        self.extra["pipe"] = pipe
        self.loop, self.io, self.protocol = loop, io, protocol
        self.fd, self.pipe = fd, pipe
        self.closing = self.is_ending = False
        return 0

    cdef int connect_protocol(self, object waiter) except -1:
        """Schedule connection_made and, after it, the first event."""
        self.loop.call_soon(self.protocol.connection_made, self)
        self.loop.call_soon(self._begin)
        if waiter is not None:
            self.loop.call_soon(futures._set_result_unless_cancelled, waiter, None)
        return 0

    def _begin(self):
        """Watch the pipe, after connection_made, in a context of its own."""
        if not self.is_ending and self.pipe is not None:
            self.context = PyContext_CopyCurrent()
            self.io.poller.add(self, self.interest())

    cdef uint32_t interest(self) noexcept:
        return 0

    def __del__(self):
        if self.pipe is None:
            return
        try:
            # raises where warnings are errors
            warnings.warn(f"unclosed transport {self!r}", ResourceWarning, source=self)
        finally:
            self.release()

    # --- events

    cdef int enqueue(self, uint32_t events) except -1:
        self.pending |= events
        if not self.is_queued:
            self.is_queued = True
            push(self.io.ready, self)
        return 0

    cdef int run(self) except -1:
        cdef uint32_t events = self.pending
        cdef int result
        self.pending, self.is_queued = 0, False
        # another file may have the descriptor, if the program has closed the pipe itself
        if self.is_ending or self.io.poller.at(self.fd) is not self:
            return 0
        context = self.context
        if PyContext_Enter(<PyObject *>context) < 0:
            # another thread runs the context itself
            PyErr_Clear()
            context = PyContext_Copy(context)
            if PyContext_Enter(<PyObject *>context) < 0:
                raise_pending()
        result = (<Handling>handle)(self, events)
        if result != 0:
            result = (<Handling>handle_failure)(self, events)
        PyContext_Exit(<PyObject *>context)
        return result

    cdef int handle_events(self, uint32_t events) except -1:
        return 0

    cdef int failed(self, uint32_t events) except -1:
        """Handle the exception that is set as a handle does; SystemExit and KeyboardInterrupt leave the loop."""
        try:
            raise_pending()
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as exc:
            self.loop.call_exception_handler({
                "message": f"Exception in callback of {self!r}",
                "exception": exc,
                "transport": self,
                "protocol": self.protocol,
            })
        return 0

    # --- the end

    cdef int fatal_error(self, object exc, str message, bint is_expected) except -1:
        """End the transport for an error. An expected one is logged in debug mode only."""
        if not is_expected:
            self.loop.call_exception_handler(
                {"message": message, "exception": exc, "transport": self, "protocol": self.protocol}
            )
        elif self.loop.get_debug():
            logger.debug("%r: %s", self, message, exc_info=exc)
        return self.end(exc)

    cdef int stop_io(self) except -1:
        """Watch the pipe no more; queued bytes are lost."""
        return self.io.poller.remove(self)

    cdef int end(self, object exc) except -1:
        """Schedule connection_lost, once; nothing is read or written from here on."""
        self.closing = True
        if self.is_ending:
            return 0
        self.is_ending = True
        self.stop_io()
        self.loop.call_soon(self._call_connection_lost, exc)
        return 0

    def _call_connection_lost(self, exc):
        self.lost(exc)

    cdef int lost(self, object exc) except -1:
        """Notify the protocol of the lost connection, and close the pipe."""
        protocol = self.protocol
        try:
            if protocol is not None:
                protocol.connection_lost(exc)
        finally:
            self.protocol = None
            self.release()
        return 0

    cdef int release(self) except -1:
        """Close the program's pipe object, which closes the descriptor."""
        pipe, self.pipe = self.pipe, None
        self.closing = self.is_ending = True
        if pipe is None:
            return 0
        try:
            self.stop_io()
        finally:
            pipe.close()
        return 0 if self.io.starved is None else self.io.descriptor_freed()

    # --- what every transport has

    def get_extra_info(self, name, default=None):
        """`pipe`, and what the loop has added."""
        return self.extra.get(name, default)

    def get_protocol(self):
        """The current protocol."""
        return self.protocol

    def set_protocol(self, protocol):
        """Switch to another protocol; the next event is its."""
        self.protocol = protocol

    def is_closing(self):
        """Return whether the transport is closing or closed."""
        return self.closing

    cdef list describe(self):
        """Return the parts of its repr."""
        info = [self.__class__.__name__]
        if self.pipe is None:
            info.append("closed")
        elif self.closing:
            info.append("closing")
        info.append(f"fd={self.fd}")
        if self.pipe is not None and self.loop.is_closed():
            info.append("open")
        return info

    @property
    def _pipe(self):
        return self.pipe

    @_pipe.setter
    def _pipe(self, pipe):
        self.pipe = pipe

    @property
    def _fileno(self):
        return self.fd

    @property
    def _loop(self):
        return None if self.pipe is None else self.loop

    @property
    def _protocol(self):
        return self.protocol

    @property
    def _closing(self):
        return self.closing

    @property
    def _extra(self):
        return self.extra


cdef inline int raise_pending() except -1:
    return -1


cdef int handle(PipeTransport self, uint32_t events) except -1:
    return self.handle_events(events)


cdef int handle_failure(PipeTransport self, uint32_t events) except -1:
    return self.failed(events)
