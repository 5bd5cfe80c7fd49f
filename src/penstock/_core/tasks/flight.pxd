from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

cdef enum:
    BIRTH = 0
    STEP = 1
    END = 2
    CALLBACK = 3


cdef struct Entry:
    int64_t at_ns, took_ns
    uint64_t task
    uint32_t site
    uint8_t kind
    uint8_t detail


cdef class Flight:
    cdef Entry *entries
    cdef readonly uint64_t written
    cdef uint64_t mask


cdef inline void note(
    Flight flight, uint8_t kind, int64_t at_ns, int64_t took_ns, uint64_t task, uint32_t site, uint8_t detail
) noexcept:
    """Writes one entry over the oldest."""
    cdef Entry *entry = &flight.entries[flight.written & flight.mask]
    flight.written += 1
    entry.at_ns, entry.took_ns, entry.task = at_ns, took_ns, task
    entry.site, entry.kind, entry.detail = site, kind, detail
