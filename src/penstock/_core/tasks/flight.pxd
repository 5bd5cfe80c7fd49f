from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

cdef enum:
    BIRTH = 0
    STEP = 1
    END = 2
    CALLBACK = 3


cdef struct FlightEvent:
    int64_t at_ns, took_ns
    uint64_t task
    uint32_t site
    uint8_t kind
    uint8_t detail


cdef class FlightRecorder:
    cdef FlightEvent *events
    cdef readonly uint64_t written
    cdef uint64_t mask


cdef inline void note(
    FlightRecorder flight, uint8_t kind, int64_t at_ns, int64_t took_ns, uint64_t task, uint32_t site, uint8_t detail
) noexcept:
    """Write one event over the oldest."""
    cdef FlightEvent *event = &flight.events[flight.written & flight.mask]
    flight.written += 1
    event.at_ns, event.took_ns, event.task = at_ns, took_ns, task
    event.site, event.kind, event.detail = site, kind, detail
