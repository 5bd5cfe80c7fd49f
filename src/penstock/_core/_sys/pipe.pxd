# Pipes as the transports use them: never waiting, by file descriptor. A stream socket may stand in a pipe's place.
from penstock._core._sys.socket cimport iovec

cdef extern from *:
    """
    #include <errno.h>
    #include <fcntl.h>
    #include <poll.h>
    #include <string.h>
    #include <sys/socket.h>
    #include <sys/stat.h>
    #include <sys/syscall.h>
    #include <sys/uio.h>
    #include <unistd.h>

    enum { PENSTOCK_NO_PIPE, PENSTOCK_FIFO, PENSTOCK_STREAM_SOCKET };

    /* The kind of a file that a native pipe transport takes; PENSTOCK_NO_PIPE for all others. */
    static int penstock_pipe_kind(int fd)
    {
        struct stat found;
        int type = 0;
        socklen_t length = sizeof(type);
        if (fstat(fd, &found) < 0)
            return PENSTOCK_NO_PIPE;
        if (S_ISFIFO(found.st_mode))
            return PENSTOCK_FIFO;
        if (!S_ISSOCK(found.st_mode) || getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &length) < 0)
            return PENSTOCK_NO_PIPE;
        return type == SOCK_STREAM ? PENSTOCK_STREAM_SOCKET : PENSTOCK_NO_PIPE;
    }

    /* Make a file non-blocking. -1 with errno. */
    static int penstock_unblock(int fd)
    {
        int flags = fcntl(fd, F_GETFL);
        if (flags < 0 || flags & O_NONBLOCK)
            return flags < 0 ? -1 : 0;
        return fcntl(fd, F_SETFL, flags | O_NONBLOCK);
    }

    /* Whether a read would not wait now, also of a file that another process has made blocking. */
    static int penstock_can_read(int fd)
    {
        struct pollfd asked = {fd, POLLIN, 0};
        return poll(&asked, 1, 0) != 0;
    }

    /* Another process that has the file may have made it blocking. A call that waited would hold the GIL. */
    #if defined(SYS_preadv2) && defined(SYS_pwritev2)
    static int penstock_asks_not_to_wait = 1;
    #else
    static int penstock_asks_not_to_wait = 0;
    #define SYS_preadv2 -1
    #define SYS_pwritev2 -2
    #endif
    /* RWF_NOWAIT: on pipes since Linux 6.4, except those with a name. */
    #define PENSTOCK_NOWAIT 8

    static ssize_t penstock_fifo_call(long call, int fd, struct iovec *vector, int count)
    {
        if (penstock_asks_not_to_wait) {
            ssize_t done = syscall(call, fd, vector, (unsigned long)count, -1L, -1L, PENSTOCK_NOWAIT);
            if (done >= 0 || (errno != EOPNOTSUPP && errno != ENOSYS && errno != EINVAL && errno != EPERM))
                return done;
            penstock_asks_not_to_wait = 0;
        }
        if (penstock_unblock(fd) < 0)
            return -1;
        return call == SYS_preadv2 ? readv(fd, vector, count) : writev(fd, vector, count);
    }

    /* Bytes read into two buffers, 0 at the end, or minus the error's number. */
    static Py_ssize_t penstock_read_pipe(int fd, int kind, void *first, size_t first_bytes, void *second, size_t second_bytes)
    {
        struct iovec vector[2] = {{first, first_bytes}, {second, second_bytes}};
        struct msghdr message;
        ssize_t got;
        memset(&message, 0, sizeof(message));
        message.msg_iov = vector;
        message.msg_iovlen = 2;
        do {
            if (kind == PENSTOCK_STREAM_SOCKET)
                got = recvmsg(fd, &message, MSG_DONTWAIT);
            else
                got = penstock_fifo_call(SYS_preadv2, fd, vector, second_bytes ? 2 : 1);
        } while (got < 0 && errno == EINTR);
        return got < 0 ? -errno : got;
    }

    /* Bytes written from a vector, or minus the error's number. */
    static Py_ssize_t penstock_write_pipe(int fd, int kind, struct iovec *vector, int count)
    {
        struct msghdr message;
        ssize_t sent;
        memset(&message, 0, sizeof(message));
        message.msg_iov = vector;
        message.msg_iovlen = count;
        do {
            if (kind == PENSTOCK_STREAM_SOCKET)
                sent = sendmsg(fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
            else
                sent = penstock_fifo_call(SYS_pwritev2, fd, vector, count);
        } while (sent < 0 && errno == EINTR);
        return sent < 0 ? -errno : sent;
    }
    """
    enum:
        NO_PIPE "PENSTOCK_NO_PIPE"
        FIFO "PENSTOCK_FIFO"
        STREAM_SOCKET "PENSTOCK_STREAM_SOCKET"
    int pipe_kind "penstock_pipe_kind"(int fd) noexcept
    int unblock "penstock_unblock"(int fd) noexcept
    bint can_read_now "penstock_can_read"(int fd) noexcept
    Py_ssize_t read_pipe "penstock_read_pipe"(
        int fd, int kind, void *first, size_t first_bytes, void *second, size_t second_bytes
    ) noexcept
    Py_ssize_t write_pipe "penstock_write_pipe"(int fd, int kind, iovec *vector, int count) noexcept
