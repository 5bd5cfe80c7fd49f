"""Shedding unread: a connection that cannot be served in time is answered and closed, and no request is read from it.

The protocol knows the answer: its attribute `overload_reply` is bytes, or None while no answer is possible (in the
middle of another answer, say). A tuple of bytes has several answers, given in rotation, so that not all clients are
told to come back at one time. A connection without a protocol gets the answer of the newest protocol of its server.

The received bytes are discarded first, and later ones too while the connection lingers: a socket that is closed over
unread data is reset, and the reset may overtake the answer.
"""

from cpython.bytes cimport PyBytes_CheckExact
from cpython.tuple cimport PyTuple_CheckExact
from libc.errno cimport EAGAIN
from posix.unistd cimport close

from penstock._core._sys.python cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from penstock._core._sys.socket cimport MSG_DONTWAIT, MSG_MORE, MSG_NOSIGNAL, receive, send
from penstock._core.overload.lingering cimport LingeringConnections

cdef enum:
    PIECE_BYTES = 16 * 1024
    PIECES = 16

# The number of answers that were chosen, for the rotation.
cdef size_t chosen = 0


cdef tuple replies_of(object protocol):
    """Return the answers of a protocol, None without any. TypeError for other types; its property may raise anything."""
    told = getattr(protocol, "overload_reply", None)
    replies = told if PyTuple_CheckExact(told) else (told,)
    if told is None or all([PyBytes_CheckExact(reply) for reply in replies]):
        return None if told is None or not replies else replies
    kind = type(protocol).__qualname__
    raise TypeError(f"overload_reply of {kind} is {told!r}: allowed is bytes, a tuple of bytes, or None")


cdef bytes next_of(tuple replies):
    """Return the next answer in rotation; None for None."""
    global chosen
    chosen += 1
    return None if replies is None else <bytes>replies[chosen % <size_t>len(replies)]


cdef int drain(int fd) noexcept:
    """Discard the received bytes. Return ANSWERED for some, GONE for an end or a reset alone, else SILENT."""
    cdef char piece[PIECE_BYTES]
    cdef Py_ssize_t got = PIECE_BYTES
    cdef int i, found = GONE
    for i in range(PIECES):
        got = receive(fd, piece, PIECE_BYTES)
        if got > 0:
            found = ANSWERED
        if got != PIECE_BYTES:
            break
    return SILENT if got == -EAGAIN and found == GONE else found


cdef int shed(int fd, bytes reply, LingeringConnections lingering) noexcept:
    """Answer and close a descriptor that has no transport. If SILENT is returned, the caller still owns it.

    SILENT, and nothing done, without a reply: the newest protocol of its server had none.
    """
    cdef int found = SILENT if reply is None else drain(fd)
    if found == SILENT:
        return SILENT
    if found == ANSWERED:
        # An empty buffer takes it whole. The end follows: one packet carries both.
        send(fd, PyBytes_AS_STRING(reply), PyBytes_GET_SIZE(reply), MSG_NOSIGNAL | MSG_DONTWAIT | MSG_MORE)
        lingering.add(fd)
    else:
        close(fd)
    return found
