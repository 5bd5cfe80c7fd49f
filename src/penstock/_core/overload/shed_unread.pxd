from penstock._core.overload.lingering cimport LingeringConnections

cdef enum:
    # Nothing has come yet; it was answered, and lingers; its client had left, and it was closed.
    SILENT
    ANSWERED
    GONE


cdef tuple replies_of(object protocol)
cdef bytes next_of(tuple replies)
cdef int drain(int fd) noexcept
cdef int shed(int fd, bytes reply, LingeringConnections lingering) noexcept
