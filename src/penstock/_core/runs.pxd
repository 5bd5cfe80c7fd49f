cdef class RunLifecycle:
    cdef public bint _closed, _stopping, _debug
    cdef public object _thread_id

    cdef int forget_stop(self, future) except -1
