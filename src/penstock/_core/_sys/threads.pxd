# What the kernel knows of a thread: its number, the clock of its CPU time, how long it was ready but had no CPU.
from libc.stdint cimport int64_t

cdef extern from *:
    """
    #ifndef _GNU_SOURCE
    #define _GNU_SOURCE
    #endif
    #include <fcntl.h>
    #include <pthread.h>
    #include <stdint.h>
    #include <stdio.h>
    #include <stdlib.h>
    #include <string.h>
    #include <sys/syscall.h>
    #include <time.h>
    #include <unistd.h>

    static int penstock_cpu_clock(void)
    {
        clockid_t clock_id;
        return pthread_getcpuclockid(pthread_self(), &clock_id) == 0 ? (int)clock_id : 0;
    }
    #define penstock_thread_number() ((int)syscall(SYS_gettid))

    /* -1 if there is no such clock, or its thread has ended */
    static int64_t penstock_cpu_ns(int clock_id)
    {
        struct timespec used;
        if (clock_id == 0 || clock_gettime((clockid_t)clock_id, &used) != 0)
            return -1;
        return (int64_t)used.tv_sec * 1000000000 + used.tv_nsec;
    }

    static int penstock_open_schedule(int thread)
    {
        char path[64];
        snprintf(path, sizeof path, "/proc/self/task/%d/schedstat", thread);
        return open(path, O_RDONLY | O_CLOEXEC);
    }

    /* Makes *fd, -1 at first, another open file; its number stays. 0: there was no file to be had. */
    static int penstock_replace_fd(int *fd, int other)
    {
        int done = other >= 0;
        if (done && *fd < 0) {
            *fd = other;
            return 1;
        }
        if (done) {
            done = dup3(other, *fd, O_CLOEXEC) >= 0;
            close(other);
        }
        return done;
    }

    /* The second number: nanoseconds on a run queue without a CPU, up to when it last got one. -1 where unknown. */
    static int64_t penstock_runnable_ns(int fd)
    {
        char text[96], *second;
        ssize_t count = fd < 0 ? -1 : pread(fd, text, sizeof text - 1, 0);
        if (count <= 0)
            return -1;
        text[count] = 0;
        second = strchr(text, ' ');
        return second == NULL ? -1 : (int64_t)strtoll(second + 1, NULL, 10);
    }
    """
    int own_cpu_clock "penstock_cpu_clock"() noexcept nogil
    int own_thread_number "penstock_thread_number"() noexcept nogil
    int64_t cpu_ns "penstock_cpu_ns"(int clock_id) noexcept nogil
    int open_schedule "penstock_open_schedule"(int thread) noexcept nogil
    bint replace_fd "penstock_replace_fd"(int *fd, int other) noexcept nogil
    int64_t runnable_ns "penstock_runnable_ns"(int fd) noexcept nogil
