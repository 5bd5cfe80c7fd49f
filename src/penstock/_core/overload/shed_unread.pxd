from penstock._core.overload.lingering cimport LingeringConnections

cdef enum:
    # no byte has come yet; answered, and lingering; abandoned by its client, and closed
    SILENT
    ANSWERED
    GONE


cdef tuple replies_of(object protocol)
cdef bytes next_of(tuple replies)
cdef int drain(int fd) noexcept
cdef int shed(int fd, bytes reply, LingeringConnections lingering) noexcept
