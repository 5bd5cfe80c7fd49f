"""Urgent requests: health checks, known by the path in their request line. They pass the backlog of a loop that is behind.

The first bytes of a connection are peeked at and stay in the kernel. Only GET and HEAD of HTTP/1 in plain text are
known, with the path exactly as configured; a query may follow it. A flood of such requests gains little: a bounded
number passes in a second, and the rest waits as any other request.
"""

from libc.errno cimport EAGAIN
from libc.stdint cimport int64_t
from libc.string cimport memcmp

from penstock._core._sys.python cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from penstock._core._sys.socket cimport MSG_PEEK, receive_with
from penstock._core.events.clock cimport now_ns

cdef enum:
    PEEK_BYTES = 256
    # A method, a path and what ends it are seen in one peek.
    MOST_PATH_BYTES = 200
    # As many may pass at once, and in a second. A check costs the loop some 0.3 ms.
    MOST_AT_ONCE = 20
    MOST_PER_SECOND = 100


cdef class UrgentRequests:
    """The urgent paths, as bytes, and the bound on the requests that pass. ValueError for a path that is none."""

    def __cinit__(self, paths):
        self.paths = tuple(paths)
        for path in self.paths:
            if not isinstance(path, bytes) or not path.startswith(b"/") or len(path) > MOST_PATH_BYTES:
                raise ValueError(f"a path is bytes from / on, at most {MOST_PATH_BYTES} of them, not {path!r}")
        self.allowance = MOST_AT_ONCE

    cdef int peek(self, int fd) noexcept:
        """Peek at the received bytes and classify them. The caller must admit what is URGENT, for it is counted here."""
        cdef char data[PEEK_BYTES]
        cdef Py_ssize_t got = receive_with(fd, data, PEEK_BYTES, MSG_PEEK)
        cdef int kind
        if got <= 0:
            return UNDECIDED if got == -EAGAIN else ORDINARY
        kind = self.classify(data, got)
        return ORDINARY if kind == URGENT and not self.take_allowance() else kind

    cdef int classify(self, const char *data, Py_ssize_t size_bytes) noexcept:
        """Return URGENT if the bytes begin a request for one of the paths, without regard to the bound."""
        cdef Py_ssize_t begin = 0
        cdef int kind, best = ORDINARY
        cdef bytes path
        if size_bytes > 4 and not memcmp(data, b"GET ", 4):
            begin = 4
        elif size_bytes > 5 and not memcmp(data, b"HEAD ", 5):
            begin = 5
        elif size_bytes <= 5 and (begins(data, size_bytes, b"GET ", 4) or begins(data, size_bytes, b"HEAD ", 5)):
            return UNDECIDED
        else:
            return ORDINARY
        for path in self.paths:
            kind = path_kind(data + begin, size_bytes - begin, PyBytes_AS_STRING(path), PyBytes_GET_SIZE(path))
            if kind == URGENT:
                return URGENT
            if kind == UNDECIDED:
                best = UNDECIDED
        return best

    cdef bint take_allowance(self) noexcept:
        """Return whether one more request may pass now. If so, count it."""
        cdef int64_t at_ns = now_ns()
        if self.filled_ns:
            self.allowance += <double>(at_ns - self.filled_ns) * MOST_PER_SECOND / 1e9
            self.allowance = min(self.allowance, <double>MOST_AT_ONCE)
        self.filled_ns = at_ns
        if self.allowance < 1:
            return False
        self.allowance -= 1
        self.admitted += 1
        return True

    # For tests: the steps of the backlog.

    def names_path(self, bytes data not None):
        """Return whether the bytes begin a request for one of the paths; None for too few bytes."""
        cdef int kind = self.classify(PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data)) if data else UNDECIDED
        return None if kind == UNDECIDED else kind == URGENT

    def take(self):
        """Return whether one more request may pass now. If so, count it."""
        return bool(self.take_allowance())


cdef inline bint begins(const char *data, Py_ssize_t size_bytes, const char *word, Py_ssize_t length) noexcept:
    return memcmp(data, word, min(size_bytes, length)) == 0


cdef inline int path_kind(const char *data, Py_ssize_t size_bytes, const char *path, Py_ssize_t length) noexcept:
    if memcmp(data, path, min(size_bytes, length)):
        return ORDINARY
    if size_bytes <= length:
        return UNDECIDED
    return URGENT if data[length] == c' ' or data[length] == c'?' else ORDINARY
