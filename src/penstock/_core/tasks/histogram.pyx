"""A histogram of times: log-linear buckets of fixed memory, a few nanoseconds to add to. `penstock.times` explains it.

Ownership: its buckets, in the object itself. Only code that holds the GIL touches it.
"""

from libc.stdint cimport int64_t


cdef class Histogram:
    """As `penstock.times.PlainHistogram`."""

    def add(self, int64_t ns):
        """Count a time, in nanoseconds; a negative one as 0."""
        record(self, ns)

    def buckets(self):
        """The buckets that hold something: (index, how many), ascending."""
        cdef int bucket
        return tuple([(bucket, self.held[bucket]) for bucket in range(BUCKET_COUNT) if self.held[bucket]])
