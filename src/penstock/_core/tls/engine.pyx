"""The interface of TLS engines: bytes of the wire on one side, bytes of the program on the other.

An engine knows no transport, no protocol and no loop. Its calls never block and make no system call. A call that fails
raises the exception that `ssl` raises, and returns FAILED. What a call leaves for the peer is in `output` afterwards: the
caller sends it before the next call on any engine of this thread, since engines of one loop may share the memory.
"""


cdef class Engine:
    """One side of a TLS connection."""

    cdef int feed(self, const char *data, Py_ssize_t size_bytes) except -1:
        """Take bytes that came from the peer. They stay the caller's, and must stay in place until `settle`."""
        raise NotImplementedError

    cdef int settle(self) except -1:
        """Copy what is left of the fed bytes: the caller's memory is about to change."""
        raise NotImplementedError

    cdef int feed_eof(self) except -1:
        """Take the end of the peer's bytes; reads raise SSLEOFError from then on, unless close_notify came before."""
        raise NotImplementedError

    cdef Py_ssize_t output(self, const char **start) except -1:
        """Return the number of bytes for the peer, and point `start` at them. Valid until `discard_output`."""
        raise NotImplementedError

    cdef int discard_output(self) except -1:
        """Forget the output: it is sent, or queued elsewhere."""
        raise NotImplementedError

    cdef int handshake(self) except -2:
        """Go on with the handshake. Return 1 when it is done, WANTS_INPUT before."""
        raise NotImplementedError

    cdef int shut_down(self) except -2:
        """Send close_notify. Return 1 when the peer's has come too, WANTS_INPUT before."""
        raise NotImplementedError

    cdef Py_ssize_t read(self, char *into, Py_ssize_t most_bytes) except -2:
        """Decrypt up to `most_bytes`. Return their number, 0 after the peer's close_notify, WANTS_INPUT before more came."""
        raise NotImplementedError

    cdef Py_ssize_t write(self, const char *data, Py_ssize_t size_bytes) except -2:
        """Encrypt; records hold up to 16 KiB. Return the bytes taken, WANTS_INPUT if none can be before more came."""
        raise NotImplementedError

    cdef bint has_plaintext(self) except -1:
        """Return whether a read would give bytes at once: decrypted ones, or fed ones that hold a whole record."""
        raise NotImplementedError
