from libc.stdint cimport uint16_t, uint32_t

from penstock._core._sys.socket cimport sockaddr_in6, sockaddr_storage, socklen_t


cdef struct ShortName:
    # An IPv4 address and its port, as the kernel has them; family 0: none.
    uint32_t address
    uint16_t port, family


cdef struct Peer:
    # As accept gave it. Longer ones than IPv6's are cut off: a Unix socket's, which can be asked for later.
    sockaddr_in6 address
    socklen_t size_bytes


cdef object decode(sockaddr_storage *address, Py_ssize_t length)
cdef bint shorten(Peer *accepted, ShortName *kept) noexcept
cdef object long_name(ShortName *kept)
# These give the name as an object; None where `kept` holds it, or where there is none.
cdef object peer_name(int fd, Peer *accepted)
cdef object peer_of(int fd, ShortName *kept)
cdef object name_of(int fd, ShortName *kept)
cdef int protocol_of(int fd) noexcept
cdef int protocol_below(int fd) noexcept
cdef int send_at_once(int fd) noexcept
cdef bint reads_to_the_end(int fd) noexcept
