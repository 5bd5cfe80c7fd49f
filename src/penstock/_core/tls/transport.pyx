"""The transport that programs see over TLS: asyncio's interface in front of a `TLSConnection`.

Ownership: the transport and its connection refer to each other until the connection is lost.
"""

import warnings
from asyncio import sslproto
from asyncio.constants import _SendfileMode

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_CheckExact

from penstock._core._sys.python cimport PyBytes_AS_STRING, PyBytes_GET_SIZE, drop_dict
from penstock._core.tls.connection cimport LOST, TLSConnection


class SSLTransport(sslproto._SSLProtocolTransport):
    """The type that `transport.__class__` names, with "ssl" in its name as programs and CPython's own tests expect."""


cdef class TLSTransport:
    """The transport of a TLS connection. `isinstance(transport, asyncio.Transport)` holds."""

    _start_tls_compatible = True
    _sendfile_compatible = _SendfileMode.FALLBACK

    def __cinit__(self, TLSConnection connection not None):
        drop_dict(self)
        self.connection = connection

    def __del__(self):
        if not self.connection.is_closed:
            self.connection.is_closed = True
            warnings.warn("unclosed transport <asyncio._SSLProtocolTransport object>", ResourceWarning)

    def get_extra_info(self, name, default=None):
        """`ssl_object`, `sslcontext`, `peercert`, `cipher`, `compression`, and what the transport below knows."""
        return self.connection.extra_info(name, default)

    def get_protocol(self):
        """The current protocol."""
        return self.connection.app_protocol

    def set_protocol(self, protocol):
        """Switch to another protocol, buffered or not; the next event is its."""
        self.connection.take_app_protocol(protocol)
        if self.connection.stream is not None:
            self.connection.stream._switched()

    def is_closing(self):
        """Return whether the transport is closing or closed."""
        return self.connection.is_closed or (self.connection.lower is not None and self.connection.lower.is_closing())

    def close(self):
        """Close once everything written is sent and the peer has confirmed; `connection_lost(None)` follows."""
        if not self.connection.is_closed:
            self.connection.is_closed = True
            self.connection.start_shutdown()
        else:
            self.connection.forget()

    def abort(self):
        """Close at once: unsent writes are lost, `connection_lost(None)` follows."""
        self.connection.abort(None)

    def _force_close(self, exc):
        self.connection.abort(exc)

    def is_reading(self):
        """Return whether data would be delivered."""
        return not self.connection.app_reading_paused

    def pause_reading(self):
        """Deliver nothing more until `resume_reading`."""
        self.connection.pause_app_reading()

    def resume_reading(self):
        """Deliver again, beginning with what came in meanwhile."""
        self.connection.resume_app_reading()

    def write(self, data):
        """Encrypt and send bytes, at the end of the callback at the latest; never blocks. The buffer may be reused."""
        cdef Py_buffer view
        if PyBytes_CheckExact(data):
            self.connection.write_plain(data, PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data))
            return
        if not isinstance(data, (bytes, bytearray, memoryview)):
            raise TypeError(f"data: expecting a bytes-like instance, got {type(data).__name__}")
        if isinstance(data, memoryview) and not data.c_contiguous:
            data = bytes(data)
        PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
        try:
            self.connection.write_plain(None, <const char *>view.buf, view.len)
        finally:
            PyBuffer_Release(&view)

    def writelines(self, list_of_data):
        """Write many buffers, in as few records as they fit in."""
        # All are taken before any is queued: a wrong one leaves nothing behind.
        self.write(b"".join([data if PyBytes_CheckExact(data) else bytes(memoryview(data)) for data in list_of_data]))

    def write_eof(self):
        """NotImplementedError: TLS has no half-closed connections here, as asyncio's."""
        raise NotImplementedError

    def can_write_eof(self):
        """False."""
        return False

    def set_write_buffer_limits(self, high=None, low=None):
        """Set the watermarks, in bytes: from `high` on the protocol is paused, at `low` resumed. ValueError if low > high."""
        self.connection.set_write_limits(high, low)
        self.connection.flush_backlog()

    def get_write_buffer_limits(self):
        """The watermarks `(low, high)`, in bytes."""
        return self.connection.low_bytes, self.connection.high_bytes

    def get_write_buffer_size(self):
        """Bytes that are not encrypted yet, for the transport below is above its watermark."""
        self.connection.send_gathered()
        return self.connection.backlog_bytes()

    def set_read_buffer_limits(self, high=None, low=None):
        """Set the watermarks of bytes that wait here while reading is paused. ValueError if low > high."""
        self.connection.set_read_limits(high, low)
        self.connection.control_lower_reading()

    def get_read_buffer_limits(self):
        """The watermarks `(low, high)` of what waits to be read, in bytes."""
        return self.connection.read_low_bytes, self.connection.read_high_bytes

    def get_read_buffer_size(self):
        """Bytes that have come in and wait, encrypted."""
        return self.connection.waiting_bytes

    def _test__append_write_backlog(self, data):
        # CPython's own tests have data wait this way
        data = bytes(data)
        self.connection.queue_plain(data, PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data), 0)

    @property
    def __class__(self):
        return SSLTransport

    @property
    def _ssl_protocol(self):
        return self.connection

    @property
    def _loop(self):
        return self.connection.loop

    @property
    def _closed(self):
        return self.connection.is_closed

    @property
    def _protocol_paused(self):
        return self.connection.app_writing_paused


def tls_protocol(*args, **kwargs):
    """Return the protocol for a transport below, as `SSLProtocol` is made; its `_app_transport` is for the program."""
    cdef TLSConnection connection = TLSConnection(*args, **kwargs)
    connection.app_transport = TLSTransport(connection)
    return connection
