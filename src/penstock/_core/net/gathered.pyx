"""The transports that keep writes back until the callback ends which made them, in the order in which they began to.

An owner enters itself once for each callback, with the function that sends what it has kept back, and notes that itself.

Ownership: the list owns its memory, and a reference to each owner until it is flushed or forgotten.
"""

from cpython.mem cimport PyMem_Free, PyMem_Realloc
from cpython.ref cimport Py_DECREF, Py_INCREF

cdef enum:
    FIRST_SIZE = 16


cdef int gather(GatheredWrites *gathered, object owner, Flush flush) except -1:
    """Have `flush(owner)` called when the callback has ended."""
    if gathered.count == gathered.size:
        grow(gathered)
    Py_INCREF(owner)
    gathered.entries[gathered.count] = GatheredEntry(<PyObject *>owner, flush)
    gathered.count += 1
    return 0


cdef int grow(GatheredWrites *gathered) except -1:
    cdef size_t size = 2 * gathered.size or FIRST_SIZE
    cdef GatheredEntry *entries = <GatheredEntry *>PyMem_Realloc(gathered.entries, size * sizeof(GatheredEntry))
    if entries is NULL:
        raise MemoryError
    gathered.entries, gathered.size = entries, size
    return 0


cdef int flush_gathered(GatheredWrites *gathered) except -1:
    """Flush every owner. What an exception leaves is flushed by the next call."""
    cdef GatheredEntry entry
    while gathered.head < gathered.count:
        entry = gathered.entries[gathered.head]
        gathered.head += 1
        try:
            entry.flush(<object>entry.owner)
        finally:
            Py_DECREF(<object>entry.owner)
    gathered.head = gathered.count = 0
    return 0


cdef int forget_gathered(GatheredWrites *gathered) except -1:
    """Release the owners and the memory; nothing is sent."""
    cdef GatheredEntry entry
    while gathered.head < gathered.count:
        entry = gathered.entries[gathered.head]
        gathered.head += 1
        Py_DECREF(<object>entry.owner)
    PyMem_Free(gathered.entries)
    gathered.entries = NULL
    gathered.head = gathered.count = gathered.size = 0
    return 0
