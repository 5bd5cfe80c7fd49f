"""Socket addresses as the `socket` module gives them, mostly without a Python socket object; what kind a socket is."""

import socket

from libc.string cimport memcpy, memset

from penstock._core._sys.python cimport PyUnicode_DecodeFSDefaultAndSize
from penstock._core._sys.socket cimport (
    AF_INET,
    AF_INET6,
    AF_UNIX,
    INET6_ADDRSTRLEN,
    IPPROTO_TCP,
    SO_DOMAIN,
    SO_PROTOCOL,
    SOL_SOCKET,
    TCP_NODELAY,
    TCP_ULP,
    getpeername,
    getsockname,
    getsockopt,
    inet_ntop,
    ntohl,
    ntohs,
    setsockopt,
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
    """Return the address in the form of the `socket` module; None for an unknown family."""
    if address.ss_family == AF_INET:
        return inet(<sockaddr_in *>address)
    if address.ss_family == AF_INET6:
        return inet6(<sockaddr_in6 *>address)
    if address.ss_family == AF_UNIX:
        return unix(<sockaddr_un *>address, length - <Py_ssize_t>sizeof(address.ss_family))
    return None


cdef object peer_name(int fd, Peer *accepted):
    """The remote address of an accepted connection, which may have ended since."""
    cdef ShortName kept
    if 0 < accepted.size_bytes <= sizeof(accepted.address):
        name = decode(<sockaddr_storage *>&accepted.address, accepted.size_bytes)
        if name is not None:
            return name
    memset(&kept, 0, sizeof(kept))
    name = peer_of(fd, &kept)
    return long_name(&kept) if kept.family else name


cdef bint shorten_inet(const sockaddr_in *address, ShortName *kept) noexcept:
    if (<const sockaddr *>address).sa_family != AF_INET:
        return False
    memcpy(&kept.address, &address.sin_addr, sizeof(kept.address))
    kept.port, kept.family = address.sin_port, AF_INET
    return True


cdef bint shorten(Peer *accepted, ShortName *kept) noexcept:
    """Keep the address of an accepted connection in its short form. Return False unless it is an IPv4 one."""
    return accepted.size_bytes == sizeof(sockaddr_in) and shorten_inet(<sockaddr_in *>&accepted.address, kept)


cdef object long_name(ShortName *kept):
    """Return the name as the `socket` module gives it."""
    cdef sockaddr_in address
    memset(&address, 0, sizeof(address))
    memcpy(&address.sin_addr, &kept.address, sizeof(kept.address))
    address.sin_port = kept.port
    return inet(&address)


cdef object peer_of(int fd, ShortName *kept):
    """The remote address; None when there is none (any more), or when `kept` holds it."""
    cdef sockaddr_storage address
    cdef socklen_t length = sizeof(address)
    memset(&address, 0, sizeof(address))
    if getpeername(fd, <sockaddr *>&address, &length) < 0 or shorten_inet(<sockaddr_in *>&address, kept):
        return None
    name = decode(&address, length)
    return asked(fd, "getpeername") if name is None else name


cdef object name_of(int fd, ShortName *kept):
    """The local address; None when there is none, or when `kept` holds it."""
    cdef sockaddr_storage address
    cdef socklen_t length = sizeof(address)
    memset(&address, 0, sizeof(address))
    if getsockname(fd, <sockaddr *>&address, &length) < 0 or shorten_inet(<sockaddr_in *>&address, kept):
        return None
    name = decode(&address, length)
    return asked(fd, "getsockname") if name is None else name


cdef object asked(int fd, str method):
    """An address by Python's socket, which knows every family."""
    try:
        sock = socket.socket(fileno=fd)
    except OSError:
        return None
    try:
        return getattr(sock, method)()
    except OSError:
        return None
    finally:
        sock.detach()


cdef int protocol_of(int fd) noexcept:
    """IPPROTO_TCP and its like; -1 for what is not of the internet's families."""
    cdef int found = -1
    cdef socklen_t length = sizeof(found)
    if getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &found, &length) < 0 or found not in (AF_INET, AF_INET6):
        return -1
    return protocol_below(fd)


cdef int protocol_below(int fd) noexcept:
    """The protocol of a socket that is of the internet's families."""
    cdef int found = -1
    cdef socklen_t length = sizeof(found)
    getsockopt(fd, SOL_SOCKET, SO_PROTOCOL, &found, &length)
    return found


cdef int send_at_once(int fd) noexcept:
    """Send small writes at once, as asyncio does over TCP. Return -1 with errno set if the kernel refuses."""
    cdef int yes = 1
    return setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof(yes))


cdef bint reads_to_the_end(int fd) noexcept:
    """Return whether a read shorter than asked proves that the socket is dry.

    Plain TCP fills a buffer from its whole queue. A read ends earlier where a message with descriptors begins (Unix), at
    the end of a record (kTLS, SCTP), of a packet (vsock over Hyper-V) or of what a subflow has handed up (MPTCP). Others
    are not known.
    """
    cdef char[16] upper
    cdef socklen_t length = sizeof(upper)
    if protocol_of(fd) != IPPROTO_TCP:
        return False
    # what runs over TCP in the kernel, such as "tls"; no bytes: nothing does
    return getsockopt(fd, IPPROTO_TCP, TCP_ULP, upper, &length) < 0 or length == 0
