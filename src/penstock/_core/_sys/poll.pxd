# Waiting for one descriptor, and looking at many, by poll.
from libc.stdint cimport int64_t

cdef extern from *:
    """
    #ifndef _GNU_SOURCE
    #define _GNU_SOURCE
    #endif
    #include <poll.h>
    #include <stdint.h>
    #include <time.h>

    /* 1 when fd can be read, 0 when the time is over, -1 for a signal. timeout_ns < 0 waits for ever. */
    static int penstock_wait_readable(int fd, int64_t timeout_ns)
    {
        struct pollfd watched = {fd, POLLIN, 0};
        struct timespec timeout = {timeout_ns / 1000000000, timeout_ns % 1000000000};
        return ppoll(&watched, 1, timeout_ns < 0 ? NULL : &timeout, NULL);
    }
    """
    int wait_readable "penstock_wait_readable"(int fd, int64_t timeout_ns) noexcept nogil

    enum:
        POLLIN
        POLLOUT
        POLLNVAL
        POLLRDHUP
        POLLERR
        POLLHUP

    struct pollfd:
        int fd
        short events, revents

    int poll(pollfd *polled, unsigned long count, int timeout_ms) nogil
