from penstock._core.tls.connection cimport TLSConnection


cdef class TLSTransport:
    # A program may set attributes, as on asyncio's; made when the first one is.
    cdef dict __dict__
    cdef object __weakref__
    cdef TLSConnection connection
