from libc.stdint cimport int64_t, uint64_t

cdef enum:
    # as in `penstock.times`
    HIGH_BITS = 5
    MOST_BITS = 45
    BUCKET_COUNT = ((MOST_BITS - HIGH_BITS) << (HIGH_BITS - 1)) + (1 << HIGH_BITS)


cdef class Histogram:
    cdef uint64_t[BUCKET_COUNT] held
    cdef readonly uint64_t count
    cdef readonly int64_t total_ns, longest_ns


cdef extern from *:
    """
    #define penstock_bit_length(number) (64 - __builtin_clzll(number))
    """
    int bit_length "penstock_bit_length"(uint64_t number) noexcept nogil


cdef inline void record(Histogram self, int64_t ns) noexcept:
    cdef int shift
    if ns < 0:
        ns = 0
    self.count += 1
    self.total_ns += ns
    if ns > self.longest_ns:
        self.longest_ns = ns
        if ns >= <int64_t>1 << MOST_BITS:
            ns = (<int64_t>1 << MOST_BITS) - 1
    elif ns >= <int64_t>1 << MOST_BITS:
        ns = (<int64_t>1 << MOST_BITS) - 1
    if ns < 1 << HIGH_BITS:
        self.held[ns] += 1
    else:
        shift = bit_length(<uint64_t>ns) - HIGH_BITS
        self.held[(shift << (HIGH_BITS - 1)) + (ns >> shift)] += 1


cdef inline void add_all(Histogram self, Histogram other) noexcept:
    """Add all times of another histogram."""
    cdef int bucket
    self.count += other.count
    self.total_ns += other.total_ns
    self.longest_ns = max(self.longest_ns, other.longest_ns)
    for bucket in range(BUCKET_COUNT):
        self.held[bucket] += other.held[bucket]
