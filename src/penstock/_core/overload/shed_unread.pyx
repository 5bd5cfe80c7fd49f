"""Turning away: who cannot be served in time is answered at once, and nothing is made of what it asked.

What to answer is known to the protocol: its attribute `overload_reply`, bytes, or None while there is nothing that could
be said (in the middle of an answer, say). A tuple of bytes has several answers, given in turn: so that not all clients
are told to come back at one time. A connection that has no protocol yet is answered what the protocols of its server say
when they are new.

What was sent is taken first, and what comes later as well, while the connection lingers: a socket closed over unread data
is reset, and the reset may overtake the answer.
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

# How many answers were chosen, of all protocols.
cdef size_t chosen = 0


cdef tuple replies_of(object protocol):
    """None where a protocol has none. Raises what its property does, and TypeError for what is no bytes."""
    told = getattr(protocol, "overload_reply", None)
    replies = told if PyTuple_CheckExact(told) else (told,)
    if told is None or all([PyBytes_CheckExact(reply) for reply in replies]):
        return None if told is None or not replies else replies
    kind = type(protocol).__qualname__
    raise TypeError(f"overload_reply of {kind} is {told!r}: allowed is bytes, a tuple of bytes, or None")


cdef bytes next_of(tuple replies):
    """One of them, another one each time; None of none."""
    global chosen
    chosen += 1
    return None if replies is None else <bytes>replies[chosen % <size_t>len(replies)]


cdef int drain(int fd) noexcept:
    """Takes what was sent, for nobody. ANSWERED: there was something; GONE: its end alone, or a reset."""
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
    """Of a connection that nothing was made of. The descriptor is still the caller's if it is SILENT.

    SILENT too, and untouched, without a reply: the newest protocol of its server had none.
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
