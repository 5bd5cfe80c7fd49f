cimport cython


@cython.final
cdef class FairQueue:
    cdef readonly object _lines, _ages
    cdef Py_ssize_t _count
    cdef long long _newest, _oldest

    cpdef void push(self, object job) except *
    cpdef void push_first(self, object job) except *
    cdef void _insert(self, object job, long long age) except *
    cpdef object peek(self)
    cpdef object pop(self)
    cpdef object pop_oldest(self)
    cdef object _by_age(self)
    cpdef bint discard(self, object job) except -1


cdef class JobQueue:
    cdef readonly object limit
    cdef readonly long long queued_bytes
    cdef readonly object _limit_bytes
    cdef str _policy
    cdef FairQueue _queue, _waiting

    cpdef bint is_full(self) except -1
    cpdef tuple offer(self, object job)
    cdef object _drop_oldest(self)
    cpdef object excess(self)
    cpdef void set_size(self, object job, object size_bytes) except *
    cpdef object peek(self)
    cpdef object take(self)
    cpdef object admit(self)
    cpdef void put_back(self, object job) except *
    cpdef bint discard(self, object job) except -1
