from penstock._core.overload.lingering cimport Lingering

cdef enum:
    # Nothing has come yet; it was answered, and lingers; its client had left, and it was closed.
    SILENT
    ANSWERED
    GONE


cdef tuple replies_of(object protocol)
cdef bytes next_of(tuple replies)
cdef int drain(int fd) noexcept
cdef int turn_away(int fd, bytes reply, Lingering lingering) noexcept
