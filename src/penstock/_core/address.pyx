"""Socket addresses as the `socket` module gives them, without a Python socket object."""

from libc.string cimport memset

from penstock._core._sys.python cimport PyUnicode_DecodeFSDefaultAndSize
from penstock._core._sys.socket cimport (
    AF_INET,
    AF_INET6,
    AF_UNIX,
    INET6_ADDRSTRLEN,
    SO_DOMAIN,
    SOL_SOCKET,
    getpeername,
    getsockname,
    getsockopt,
    inet_ntop,
    ntohl,
    ntohs,
    sockaddr,
    sockaddr_in,
    sockaddr_in6,
    sockaddr_storage,
    sockaddr_un,
    socklen_t,
)


cdef object inet(const sockaddr_in *address):
    cdef char text[INET6_ADDRSTRLEN]
    inet_ntop(AF_INET, &address.sin_addr, text, INET6_ADDRSTRLEN)
    return (<bytes>text).decode("ascii"), ntohs(address.sin_port)


cdef object inet6(const sockaddr_in6 *address):
    cdef char text[INET6_ADDRSTRLEN]
    inet_ntop(AF_INET6, &address.sin6_addr, text, INET6_ADDRSTRLEN)
    return (
        (<bytes>text).decode("ascii"),
        ntohs(address.sin6_port),
        ntohl(address.sin6_flowinfo),
        address.sin6_scope_id,
    )


cdef object unix(const sockaddr_un *address, Py_ssize_t path_bytes):
    """A path as text; an abstract name, which begins with a zero byte, as bytes; '' when there is no name."""
    if path_bytes <= 0:
        return ""
    if address.sun_path[0] == 0:
        return <bytes>address.sun_path[:path_bytes]
    if address.sun_path[path_bytes - 1] == 0:
        path_bytes -= 1
    return PyUnicode_DecodeFSDefaultAndSize(address.sun_path, path_bytes)


cdef object decode(sockaddr_storage *address, Py_ssize_t length):
    if address.ss_family == AF_INET:
        return inet(<sockaddr_in *>address)
    if address.ss_family == AF_INET6:
        return inet6(<sockaddr_in6 *>address)
    if address.ss_family == AF_UNIX:
        return unix(<sockaddr_un *>address, length - <Py_ssize_t>sizeof(address.ss_family))
    return None


cdef object peer_of(int fd):
    """The remote address; None when there is none (any more) or its family has no form here."""
    cdef sockaddr_storage address
    cdef socklen_t length = sizeof(address)
    memset(&address, 0, sizeof(address))
    return decode(&address, length) if getpeername(fd, <sockaddr *>&address, &length) == 0 else None


cdef object name_of(int fd):
    """The local address; None as for `peer_of`."""
    cdef sockaddr_storage address
    cdef socklen_t length = sizeof(address)
    memset(&address, 0, sizeof(address))
    return decode(&address, length) if getsockname(fd, <sockaddr *>&address, &length) == 0 else None


cdef int family_of(int fd):
    cdef int family = -1
    cdef socklen_t length = sizeof(family)
    getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &family, &length)
    return family
