# The walk over the running thread's frames: natively where the layout of CPython's frames has been verified.
cdef bint is_verified
