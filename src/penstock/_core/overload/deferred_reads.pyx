"""Deferred reads: the transports whose data waits until the loop has caught up, newest first; each leaves in O(1).

A linked list, since a transport that is closed meanwhile leaves from the middle. Knows nothing of transports.

Ownership: an entry owns one reference to its source. The source keeps the address of its entry, which is cleared when
the entry leaves. Some entries are kept for reuse, and freed with the list. Only code that holds the GIL touches it.
"""

from cpython.mem cimport PyMem_Free, PyMem_Malloc
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.stdint cimport int64_t

from penstock._core._sys.python cimport set_traverse, visitproc

cdef enum:
    MOST_SPARE = 1024


cdef class DeferredReads:
    """The deferred reads of one loop."""

    def __dealloc__(self):
        cdef DeferredRead *place
        self.clear()
        while self.spare is not NULL:
            place = self.spare
            self.spare = place.older
            PyMem_Free(place)

    cdef int add(self, object source, DeferredRead **kept_at, int64_t now_ns) except -1:
        """Defer `source`, from `now_ns` on, as the newest."""
        cdef DeferredRead *place = self.spare
        if place is NULL:
            place = <DeferredRead *>PyMem_Malloc(sizeof(DeferredRead))
            if place is NULL:
                raise MemoryError
        else:
            self.spare = place.older
            self.spare_count -= 1
        Py_INCREF(source)
        place.source, place.kept_at, place.since_ns = <PyObject *>source, kept_at, now_ns
        place.older, place.newer = self.newest, NULL
        if self.newest is NULL:
            self.oldest = place
        else:
            self.newest.newer = place
        self.newest = kept_at[0] = place
        self.count += 1
        self.total += 1
        self.most = max(self.most, self.count)
        return 0

    cdef int remove(self, DeferredRead *place) except -1:
        """Remove an entry. The caller must own a reference to its source."""
        cdef PyObject *source = place.source
        if place.newer is NULL:
            self.newest = place.older
        else:
            place.newer.older = place.older
        if place.older is NULL:
            self.oldest = place.newer
        else:
            place.older.newer = place.newer
        place.kept_at[0] = NULL
        self.count -= 1
        if self.spare_count < MOST_SPARE:
            place.older = self.spare
            self.spare = place
            self.spare_count += 1
        else:
            PyMem_Free(place)
        Py_DECREF(<object>source)
        return 0

    cdef int clear(self) except -1:
        while self.newest is not NULL:
            source = <object>self.newest.source
            self.remove(self.newest)
        return 0

    def __len__(self):
        return self.count

    def snapshot(self):
        """Return (source, time in nanoseconds since which it is deferred) of each, newest first."""
        cdef DeferredRead *place = self.newest
        found = []
        while place is not NULL:
            found.append((<object>place.source, place.since_ns))
            place = place.older
        return found


cdef int traverse(DeferredReads self, visitproc visit, void *arg) noexcept:
    """For the garbage collector: a loop that is dropped unclosed is reachable from itself through here."""
    cdef DeferredRead *place = self.newest
    while place is not NULL:
        if visit(place.source, arg):
            return 1
        place = place.older
    return 0


set_traverse(DeferredReads, <void *>traverse)
