"""The ready queue: a ring buffer of runnables that doubles when full, and is small again once it is empty.

Ownership: the ring owns one reference to each runnable in it, and its slots. Only code that holds the GIL touches it.
"""

from cpython.mem cimport PyMem_Free, PyMem_Malloc
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF

from libc.stdint cimport int64_t

from penstock._core._sys.python cimport set_traverse, visitproc
from penstock._core.events.handle cimport Runnable

cdef enum:
    FIRST_SIZE = 1024


cdef class Ready:
    """A FIFO queue of runnables."""

    def __cinit__(self):
        self.slots = <PyObject **>PyMem_Malloc(FIRST_SIZE * sizeof(PyObject *))
        if self.slots is NULL:
            raise MemoryError
        self.mask = FIRST_SIZE - 1

    def __dealloc__(self):
        if self.slots is not NULL:
            self.clear()
            PyMem_Free(self.slots)

    cdef int grow(self) except -1:
        if self.resize(2 * (self.mask + 1)) < 0:
            raise MemoryError
        return 0

    cdef int resize(self, size_t size) noexcept:
        """-1 without the memory: nothing has changed."""
        cdef size_t i
        cdef PyObject **slots = <PyObject **>PyMem_Malloc(size * sizeof(PyObject *))
        if slots is NULL:
            return -1
        for i in range(self.count):
            slots[i] = self.slots[(self.head + i) & self.mask]
        PyMem_Free(self.slots)
        self.slots, self.head, self.mask = slots, 0, size - 1
        return 0

    cdef int clear(self) except -1:
        while self.count:
            Py_DECREF(<object>pop(self))
        return 0

    cdef int64_t oldest_ns(self) noexcept:
        """When the oldest came; 0 when there is none, or when it came while the loop stood still."""
        return (<Runnable>self.slots[self.head]).ready_ns if self.count else 0

    def append(self, Runnable entry not None):
        """Append a runnable."""
        push(self, entry)

    def popleft(self):
        """Take the oldest; IndexError when there is none."""
        if not self.count:
            raise IndexError("pop from an empty ready queue")
        cdef PyObject *entry = pop(self)
        result = <object>entry
        Py_DECREF(result)
        return result

    def relax(self):
        """Give the memory of a large queue back, if it is empty."""
        relax(self)

    @property
    def size(self):
        """How many it has room for."""
        return self.mask + 1

    def snapshot(self):
        """Return the queued handles, oldest first."""
        return [<object>self.slots[(self.head + i) & self.mask] for i in range(self.count)]

    def __len__(self):
        return self.count


cdef int traverse(Ready self, visitproc visit, void *arg) noexcept:
    """For the garbage collector: a loop that is dropped unclosed is reachable from itself through here."""
    cdef size_t i
    for i in range(self.count):
        if visit(self.slots[(self.head + i) & self.mask], arg):
            return 1
    return 0


set_traverse(Ready, <void *>traverse)
