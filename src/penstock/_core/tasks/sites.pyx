"""Task sites: the place at which a task is created, as a number, for some ten nanoseconds. Resolved to file and line on reading.

The site is the first frame that is not asyncio's or penstock's own; where the loop itself made the task (a server's
handler), it is the coroutine's function. A site is a code object and an instruction in it.

Ownership: the table owns each code object in it, so that no address in it is ever another's. It has a limit: sites
beyond it share one number, and their code objects are not held.
"""

import asyncio
import os
from types import CodeType

from cpython.mem cimport PyMem_Calloc, PyMem_Free
from cpython.object cimport PyObject
from cpython.ref cimport Py_INCREF, Py_XDECREF
from libc.stdint cimport uint32_t, uint64_t

from penstock import _core
from penstock._core._sys.frames cimport Frame, frame_code, frame_lasti, previous_frame, top_frame
from penstock._core.tasks.stack cimport is_verified

from penstock._core.tasks.stack import frames_of_python

cdef extern from "Python.h":
    bint PyCode_Check(PyObject *object) noexcept
    void release "Py_DECREF"(PyObject *object) noexcept

cdef enum:
    # Code objects that are no site: passed over, or the begin of the loop's own turn.
    INNER = 0x7FFFFFFE
    BOUNDARY = 0x7FFFFFFF
    ANY = -1
    FIRST_SIZE = 256
    # Of asyncio's and penstock's code objects there are fewer.
    MOST_INNER = 4096
    MOST_FRAMES = 64
    STACK_FRAMES = 8

INNER_FOLDERS = tuple(
    os.path.dirname(os.path.abspath(file)) + os.sep for file in (asyncio.__file__, os.path.dirname(_core.__file__))
)


cdef inline size_t place_of(PyObject *code, int lasti) noexcept:
    cdef uint64_t mixed = ((<uint64_t>code >> 4) ^ (<uint64_t><uint32_t>lasti << 32)) * <uint64_t>0x9E3779B97F4A7C15
    return mixed >> 20


cdef class TaskSites:
    """The sites of one process, at most `limit` of them."""

    def __cinit__(self, limit=1024):
        self.slots = <SiteSlot *>PyMem_Calloc(FIRST_SIZE, sizeof(SiteSlot))
        if self.slots is NULL:
            raise MemoryError
        self.mask, self.limit = FIRST_SIZE - 1, limit
        self.sites = [None, None]

    def __dealloc__(self):
        cdef size_t at
        if self.slots is not NULL:
            for at in range(self.mask + 1):
                Py_XDECREF(self.slots[at].code)
            PyMem_Free(self.slots)

    cdef uint32_t current(self, object coro) except? 0:
        """Return the site of the running code; of `coro`'s function if that is the loop itself."""
        cdef uint32_t number = self.innermost() if is_verified else self.innermost_of_python()
        if number < INNER:
            return number
        found = getattr(coro, "cr_code", None) or getattr(coro, "gi_code", None)
        if not isinstance(found, CodeType):
            return UNKNOWN
        number = self.number_of(<PyObject *>found, 0, True)
        return number if number < INNER else UNKNOWN

    cdef uint32_t innermost(self) except? 0:
        """Return the site of the innermost frame that has one; BOUNDARY or INNER if none has."""
        cdef Frame *frame = top_frame()
        cdef PyObject *code
        cdef uint32_t number = INNER
        cdef int depth = 0
        while frame is not NULL and depth < MOST_FRAMES:
            code = frame_code(frame)
            number = INNER
            if code is not NULL and PyCode_Check(code):
                try:
                    number = self.number_of(code, frame_lasti(frame), False)
                finally:
                    release(code)
            elif code is not NULL:
                release(code)
            if number != INNER:
                return number
            frame, depth = previous_frame(frame), depth + 1
        return INNER

    cdef uint32_t innermost_of_python(self) except? 0:
        """Return `innermost` by frame objects, for an interpreter whose frames are laid out otherwise."""
        cdef uint32_t number
        for code, lasti in frames_of_python(MOST_FRAMES):
            number = self.number_of(<PyObject *>code, lasti, False)
            if number != INNER:
                return number
        return INNER

    cdef inline uint32_t find_number(self, PyObject *code, int lasti) noexcept:
        """Return the number of a place that is in the table, else 0."""
        cdef size_t at = place_of(code, lasti) & self.mask
        while self.slots[at].code is not NULL:
            if self.slots[at].code is code and self.slots[at].lasti == lasti:
                return self.slots[at].number
            at = (at + 1) & self.mask
        return 0

    cdef uint32_t number_of(self, PyObject *code, int lasti, bint is_site) except? 0:
        """Return the number of a place; INNER or BOUNDARY for code that is no site, unless `is_site`."""
        cdef uint32_t number = self.find_number(code, lasti)
        if number:
            return number
        if not is_site:
            number = self.find_number(code, ANY)
            if number:
                return number
            if (<object>code).co_filename.startswith(INNER_FOLDERS):
                return self.inner(<object>code, (<object>code).co_name == "run_forever")
            if self.skips is not None and self.skips((<object>code).co_filename):
                return self.inner(<object>code, False)
        if len(self.sites) >= self.limit:
            return OTHER
        self.sites.append((<object>code, lasti))
        self.insert(code, lasti, len(self.sites) - 1)
        return len(self.sites) - 1

    def inner(self, code, bint is_boundary):
        kind = BOUNDARY if is_boundary else INNER
        if self.inner_count < MOST_INNER:
            self.inner_count += 1
            self.insert(<PyObject *>code, ANY, kind)
        return kind

    cdef int insert(self, PyObject *code, int lasti, uint32_t number) except -1:
        if 3 * self.count >= 2 * self.mask:
            self.grow()
        cdef size_t at = place_of(code, lasti) & self.mask
        while self.slots[at].code is not NULL:
            at = (at + 1) & self.mask
        Py_INCREF(<object>code)
        self.slots[at] = SiteSlot(code, lasti, number)
        self.count += 1
        return 0

    cdef int grow(self) except -1:
        cdef size_t size = 2 * (self.mask + 1), mask = size - 1, at, to
        cdef SiteSlot *wider = <SiteSlot *>PyMem_Calloc(size, sizeof(SiteSlot))
        if wider is NULL:
            raise MemoryError
        for at in range(self.mask + 1):
            if self.slots[at].code is not NULL:
                to = place_of(self.slots[at].code, self.slots[at].lasti) & mask
                while wider[to].code is not NULL:
                    to = (to + 1) & mask
                wider[to] = self.slots[at]
        PyMem_Free(self.slots)
        self.slots, self.mask = wider, mask
        return 0

    def find(self, coro=None):
        """Return the number of the caller's site; for tests."""
        return self.current(coro)


cdef tuple raw_stack():
    """Return the innermost frames of the running thread, as (code, instruction) pairs: a raw creation stack."""
    cdef Frame *frame = NULL
    cdef PyObject *code
    if not is_verified:
        return tuple(frames_of_python(STACK_FRAMES))
    found, frame = [], top_frame()
    while frame is not NULL and len(found) < STACK_FRAMES:
        code = frame_code(frame)
        if code is not NULL:
            if PyCode_Check(code):
                found.append((<object>code, frame_lasti(frame)))
            release(code)
        frame = previous_frame(frame)
    return tuple(found)


def stack_here():
    """Return `raw_stack`; for tests."""
    return raw_stack()
