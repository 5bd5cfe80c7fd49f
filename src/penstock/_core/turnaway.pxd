cdef enum:
    # Nothing has come yet; it was answered and closed; its client had left, and it was closed.
    SILENT
    ANSWERED
    GONE


cdef bytes reply_of(object protocol)
cdef int drain(int fd) noexcept
cdef int turn_away(int fd, bytes reply) noexcept
