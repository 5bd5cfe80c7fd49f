from libc.stdint cimport int64_t

from penstock._core.net.io_context cimport IOContext
from penstock._core.overload.lag cimport Lag


cdef size_t count(IOContext io) noexcept
cdef int64_t oldest_since(IOContext io) noexcept
cdef int expire(IOContext io, Lag lag) except -1
cdef size_t admit(IOContext io, Lag lag, size_t most) except? 0
cdef int accept_all(IOContext io) except -1
cdef size_t close_abandoned(IOContext io, int64_t until_ns) except? 0
