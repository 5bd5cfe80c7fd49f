from libc.stdint cimport int64_t

from penstock._core.net.io_context cimport Wiring
from penstock._core.overload.lag cimport Lag


cdef size_t count(Wiring wiring) noexcept
cdef int64_t oldest_since(Wiring wiring) noexcept
cdef int expire(Wiring wiring, Lag lag) except -1
cdef size_t let_in(Wiring wiring, Lag lag, size_t most) except? 0
cdef int tend(Wiring wiring) except -1
cdef size_t drop_left(Wiring wiring, int64_t until_ns) except? 0
