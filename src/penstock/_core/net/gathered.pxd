from cpython.object cimport PyObject


# Sends what the owner has kept back. It runs outside of every callback, in no context of the owner's.
ctypedef int (*Flush)(object owner) except -1


cdef struct GatheredEntry:
    PyObject *owner
    Flush flush


cdef struct GatheredWrites:
    # Those before `head` are flushed.
    GatheredEntry *entries
    size_t head, count, size


cdef int gather(GatheredWrites *gathered, object owner, Flush flush) except -1
cdef int flush_gathered(GatheredWrites *gathered) except -1
cdef int forget_gathered(GatheredWrites *gathered) except -1


cdef inline bint has_gathered(const GatheredWrites *gathered) noexcept:
    return gathered.count != 0
