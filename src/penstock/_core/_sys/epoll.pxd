# The kernel's side of the poller and the waker: epoll and eventfd.
from libc.stdint cimport uint32_t, uint64_t

cdef extern from "<sys/epoll.h>" nogil:
    enum:
        EPOLL_CLOEXEC
        EPOLL_CTL_ADD
        EPOLL_CTL_MOD
        EPOLL_CTL_DEL
        EPOLLIN
        EPOLLOUT
        EPOLLPRI
        EPOLLERR
        EPOLLHUP
        EPOLLRDHUP
        EPOLLET

    ctypedef union epoll_data_t:
        uint64_t u64

    struct epoll_event:
        uint32_t events
        epoll_data_t data

    int epoll_create1(int flags)
    int epoll_ctl(int epfd, int op, int fd, epoll_event *event)

cdef extern from "<sys/eventfd.h>" nogil:
    enum:
        EFD_CLOEXEC
        EFD_NONBLOCK
    ctypedef uint64_t eventfd_t
    int eventfd(unsigned int initval, int flags)
    int eventfd_write(int fd, eventfd_t value)

cdef extern from *:
    """
    #include <errno.h>
    #include <time.h>
    #include <unistd.h>
    #include <sys/epoll.h>
    #include <sys/syscall.h>

    /* How many events, or the negative error number. */
    static int penstock_epoll_now(int epfd, struct epoll_event *events, int max_events)
    {
        int count = epoll_wait(epfd, events, max_events, 0);
        return count < 0 ? -errno : count;
    }

    /* epoll_pwait2 (Linux 5.11) takes nanoseconds. glibc 2.31 and older lack the wrapper, an old kernel the call, and a
       seccomp filter may refuse it with any error: then milliseconds, rounded up so that no timer fires early.
       timeout_ns < 0 waits for ever. */
    static int penstock_epoll_wait_ns(int epfd, struct epoll_event *events, int max_events, long long timeout_ns)
    {
    #ifdef SYS_epoll_pwait2
        static int refused = 0;
        if (!refused) {
            struct timespec timeout = {timeout_ns / 1000000000LL, timeout_ns % 1000000000LL};
            int count = (int)syscall(SYS_epoll_pwait2, epfd, events, max_events,
                                     timeout_ns < 0 ? NULL : &timeout, NULL, 0);
            if (count >= 0 || errno == EINTR)
                return count < 0 ? -EINTR : count;
            /* Only the older call tells whether it is the call that is refused, or the descriptor that is wrong. */
            count = penstock_epoll_now(epfd, events, max_events);
            if (count < 0)
                return count;
            refused = 1;
            if (count > 0)
                return count;
        }
    #endif
        long long timeout_ms = timeout_ns < 0 ? -1 : (timeout_ns + 999999LL) / 1000000LL;
        int count = epoll_wait(epfd, events, max_events, timeout_ms > 0x7fffffff ? 0x7fffffff : (int)timeout_ms);
        return count < 0 ? -errno : count;
    }
    """
    int epoll_now "penstock_epoll_now"(int epfd, epoll_event *events, int max_events) nogil
    int epoll_wait_ns "penstock_epoll_wait_ns"(int epfd, epoll_event *events, int max_events, long long timeout_ns) nogil
