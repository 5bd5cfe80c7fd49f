cdef object peer_of(int fd)
cdef object name_of(int fd)
cdef int family_of(int fd)
