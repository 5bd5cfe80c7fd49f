# Sockets as the transports use them: non-blocking, by file descriptor.
from libc.errno cimport EINTR, errno
from libc.stdint cimport uint16_t, uint32_t
from libc.string cimport memset

cdef extern from "<sys/types.h>" nogil:
    ctypedef int socklen_t

cdef extern from "<sys/uio.h>" nogil:
    struct iovec:
        void *iov_base
        size_t iov_len

cdef extern from "<sys/socket.h>" nogil:
    enum:
        AF_INET
        AF_INET6
        AF_UNIX
        SOCK_STREAM
        SOCK_DGRAM
        SOCK_NONBLOCK
        SOCK_CLOEXEC
        SOL_SOCKET
        SO_DOMAIN
        SO_PROTOCOL
        SO_ERROR
        SO_LINGER
        MSG_DONTWAIT
        MSG_MORE
        MSG_NOSIGNAL
        MSG_PEEK
        MSG_TRUNC
        SHUT_WR

    ctypedef unsigned short sa_family_t
    struct sockaddr:
        sa_family_t sa_family
    struct sockaddr_storage:
        sa_family_t ss_family
    struct linger:
        int l_onoff
        int l_linger
    struct msghdr:
        iovec *msg_iov
        size_t msg_iovlen

    int accept4(int fd, sockaddr *addr, socklen_t *addrlen, int flags)
    int getsockname(int fd, sockaddr *addr, socklen_t *addrlen)
    int getpeername(int fd, sockaddr *addr, socklen_t *addrlen)
    int getsockopt(int fd, int level, int name, void *value, socklen_t *length)
    int setsockopt(int fd, int level, int name, const void *value, socklen_t length)
    ssize_t recv(int fd, void *buffer, size_t length, int flags)
    ssize_t recvmsg(int fd, msghdr *message, int flags)
    ssize_t send(int fd, const void *buffer, size_t length, int flags)
    ssize_t sendmsg(int fd, const msghdr *message, int flags)
    int shutdown(int fd, int how)

cdef extern from "<sys/ioctl.h>" nogil:
    int ioctl(int fd, unsigned long request, int *value)

cdef extern from "<linux/sockios.h>" nogil:
    enum:
        # Bytes received and not yet read; bytes sent and not yet acknowledged.
        SIOCINQ
        SIOCOUTQ

cdef extern from "<netinet/in.h>" nogil:
    enum:
        IPPROTO_TCP
        IPPROTO_UDP
        INET6_ADDRSTRLEN
    struct in_addr:
        pass
    struct in6_addr:
        pass
    struct sockaddr_in:
        uint16_t sin_port
        in_addr sin_addr
    struct sockaddr_in6:
        uint16_t sin6_port
        uint32_t sin6_flowinfo
        in6_addr sin6_addr
        uint32_t sin6_scope_id

cdef extern from "<netinet/tcp.h>" nogil:
    enum:
        TCP_NODELAY
        TCP_ULP

cdef extern from "<sys/un.h>" nogil:
    struct sockaddr_un:
        sa_family_t sun_family
        char sun_path[108]

cdef extern from "<arpa/inet.h>" nogil:
    uint16_t ntohs(uint16_t value)
    uint32_t ntohl(uint32_t value)
    uint16_t htons(uint16_t value)
    uint32_t htonl(uint32_t value)
    int inet_pton(int family, const char *text, void *target)
    const char *inet_ntop(int family, const void *source, char *target, socklen_t size)


cdef inline Py_ssize_t receive(int fd, void *target, Py_ssize_t size_bytes) noexcept:
    """Bytes received, 0 at the end of the stream, or minus the error's number.

    Does not wait, although a process that shares the descriptor may have made it blocking.
    """
    return receive_with(fd, target, size_bytes, 0)


cdef inline Py_ssize_t receive_into_both(
    int fd, void *first, Py_ssize_t first_bytes, void *second, Py_ssize_t second_bytes
) noexcept:
    """As `receive`, into one buffer and, what it has no room for, into another."""
    cdef iovec[2] vector
    cdef msghdr message
    cdef Py_ssize_t got
    vector[0].iov_base, vector[0].iov_len = first, first_bytes
    vector[1].iov_base, vector[1].iov_len = second, second_bytes
    memset(&message, 0, sizeof(message))
    message.msg_iov, message.msg_iovlen = vector, 2
    got = recvmsg(fd, &message, MSG_DONTWAIT)
    while got < 0 and errno == EINTR:
        got = recvmsg(fd, &message, MSG_DONTWAIT)
    return got if got >= 0 else -errno


cdef inline Py_ssize_t receive_with(int fd, void *target, Py_ssize_t size_bytes, int flags) noexcept:
    """As `receive`, with more flags."""
    cdef Py_ssize_t got = recv(fd, target, size_bytes, MSG_DONTWAIT | flags)
    while got < 0 and errno == EINTR:
        got = recv(fd, target, size_bytes, MSG_DONTWAIT | flags)
    return got if got >= 0 else -errno
