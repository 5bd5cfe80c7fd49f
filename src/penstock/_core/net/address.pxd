from penstock._core._sys.socket cimport sockaddr_in6, sockaddr_storage, socklen_t


cdef struct Peer:
    # As accept gave it. Longer ones than IPv6's are cut off: a Unix socket's, which can be asked for later.
    sockaddr_in6 address
    socklen_t size_bytes


cdef object decode(sockaddr_storage *address, Py_ssize_t length)
cdef object peer_name(int fd, Peer *accepted)
cdef object peer_of(int fd)
cdef object name_of(int fd)
cdef int protocol_of(int fd) noexcept
cdef bint reads_to_the_end(int fd) noexcept
